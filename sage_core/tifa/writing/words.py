"""English words by their use in `rules`: those that end a phrase, are never its noun, or are asked about."""

from __future__ import annotations

from .english import word_set

COLORS = (
    "red", "blue", "green", "yellow", "black", "white", "brown", "orange", "purple", "pink", "gray", "gold", "silver",
)  # fmt: skip
MATERIALS = {
    "wooden": "wood", "wood": "wood", "metal": "metal", "steel": "metal", "iron": "metal", "glass": "glass",
    "stone": "stone", "plastic": "plastic", "paper": "paper", "leather": "leather", "brick": "brick",
    "concrete": "concrete", "ceramic": "ceramic", "marble": "marble",
}  # fmt: skip
SHAPES = ("round", "square", "triangular", "rectangular", "oval", "heart-shaped")
SIZES = ("small", "big", "large", "tiny", "huge", "tall", "short", "long")
NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    **{str(number): number for number in range(2, 11)},
}  # fmt: skip
OUTDOORS = ("beach", "street", "forest", "desert", "park", "city", "field", "mountain", "snow", "garden")
WILDERNESS = ("beach", "forest", "desert", "field", "mountain", "snow")
INDOORS = ("kitchen", "bathroom", "bedroom", "office", "restaurant", "library")
RELATIONS = {
    "to the left of": "left of", "left of": "left of", "to the right of": "right of", "right of": "right of",
    "above": "above", "below": "below", "on top of": "on top of", "under": "under", "beneath": "under",
    "underneath": "under", "behind": "behind", "in front of": "in front of", "next to": "next to", "beside": "next to",
    "inside": "inside", "on": "on",
}  # fmt: skip

# Words that are asked about, or start a phrase without an article.
ADJECTIVES = frozenset({*COLORS, *MATERIALS, *SHAPES, *SIZES, "grey"})
# Other adjectives, adverbs and participles. They are never the noun of a phrase, wherever they stand.
OTHER_ADJECTIVES = word_set("""
    abandoned aboard adjacent adorable afraid alert alone ancient another antique any apart around asian asleep
    attractive awake away awesome backwards bad bare beautiful beige best bound bright brightly broken built
    bunched busy calm careful casual certain cheap chinese circular clad classic clean clear close cloudy cold
    colorful colourful comfortable commercial compact complete cool crazy creamy crowded cut cute damp dark dead
    deep delicious desolate devoid different difficult dim dirty done downhill downtown drawn dressed
    driven dry due dull dusty early easily eating elderly electric electronic elegant empty enormous enough entire
    especially even every extra extremely fake famous fancy far fast fat few filthy fine first fit flat fluffy
    foggy forward free fresh full funky funny furry fuzzy giant gigantic gone good gorgeous grand grassy great
    green hairy half handicapped handsome happy hard heavy held high historic hot huge icy ill indoor indoors
    intent interesting international intricate inward italian japanese just kept laid large last late lavish left
    less lit little live local lone lonely loose lovely low lush luxurious mad made many massive medium messy
    metallic mexican military mini miniature modern moored more much muddy multi multicolored multiple narrow
    nasty nearby neat new next nice non numerous odd old older onboard only open opposite ornate other out outdoor
    outdoors outward overhead oversized own packed pale parked partially paved perched petite piled placed plain
    pretty private public quaint quick quiet quite rainy rare rather raw ready real regular residential retro rich
    right ripe rocky rough royal rural rustic rusty sad same sandy scary seated second seen self semi set several
    shaggy shiny short shut sideways silly similar simple single sized skinny sleek sleepy slender slightly slim
    slow small smooth snowy so soft solid some soviet spacious special square stacked stale standard stationary
    steep sticky still stony strange stripped strong stuck stylish such sunny super sweet tabby taken tall tan
    tasty then these thick thin third those tidy tied tight tiny together too top torn total traditional triple
    typical ugly unfinished unique unkempt unmade unusual uphill upper upright upside urban used usual vacant
    various vast very vintage visible warm weird well western wet what whole wide wild worn written wrong yet
    young younger youthful
""")
# After an article these make a plural of what follows.
NUMEROUS = word_set("few couple dozen hundred thousand million many several various multiple numerous")

MORE = word_set("other another more additional extra") | NUMEROUS
# With these a number is not exact.
ABOUT = word_set("""
    about least than nearly almost approximately roughly most maybe perhaps
    twenty thirty forty fifty sixty seventy eighty ninety hundred
""")

ARTICLES = frozenset({"a", "an", "the"})
PREPOSITIONS = word_set("""
    in on at by from to into onto over under above below behind beside between near inside outside through across along
    around against up down off past toward towards atop beneath underneath among amongst amid within beyond via upon
    alongside during after before throughout
""")
# Words that end a phrase: function words, and verbs in the forms that follow a noun.
BOUNDARIES = PREPOSITIONS | word_set("""
    and or but nor with without of for next front top left right as than like about despite because since until if
    that that's which who who's whom whose while where when there here this it its his her their your my our he
    he's she she's they them him you we i me us both each all either neither no not never none very though
    although per plus is are was were be been being am has have had do does did can could will would shall should
    may might must add adds adorns allows appears approaches arrives asks attempts attends awaits bends bites
    blows brings burns came carries carry catches celebrates chases checks cleans climbs come comes consists
    contains continues converses covers crouches cuddles cuts dangles decides depicts describes digs displays
    drink drinks drive drives drove eat eats ends engages enjoys enters examines exits explores extends falls
    features feeds fills flew flies floats fly flys follow follows gather gathers gave gazes get gets give gives
    go goes got grazes grows hang hangs held helps hold holding holds hovers hugs hung includes inspects jump
    jumps juts keep keeps kept kicks kisses kneels knows lands laughs lay lays leads leaned leans leaps lets licks
    lie lies lifts listens look looked looks looms make makes manages meets mounted moves nears needs observes
    occupies offers opens operates overlooks pass passed passes pauses peeks peers performs picks play plays pokes
    posed poses pours prepare prepares protects pulls pushes puts ran reaches read reads receives reflects rejects
    relaxes remains resembles resembling rest rests returns reveals ride rides roam roams rode rolls run runs said
    sails sat saw say says seems sees serves shares shines show shown shows sings sit sits sleep sleeps smells
    smiles smokes sniffs spans speeds spends spread spreads stand stands stares starts stay stays stood stopped
    stops stretches surrounds swim swims take takes taking talks tells thinks threw throws tops touches travels
    tries turns use uses using wait waits walk walks wants warns watch watches wear wears went works writes yawns
""")

# After a singular noun these are most often part of its name: "a train ride", "a tank top".
VERBS_AND_NOUNS = word_set(
    "ride walk show look run drive watch play drink stand rest jump sleep swim use take top carry read"
)

# Heads of phrases that name nothing visible, or nothing that is sure to be in the picture.
VAGUE = word_set("""
    accident action activity afternoon air am amount angle anyone anything area arrangement array assortment
    attempt autumn back background beginning bit body both bottom break bunch caption case celebration center
    centre century close-up close-ups closeup collection color colour combination company condition contrast
    conversation copy corner country couple course crew day daytime death degree depth description design
    destination direction display distance dollar dozen edge effect end evening event everyone everything example
    experience exterior fact fall fashion foot foreground form formation front function gallon game glimpse group
    half handful height help history hour idea illusion image inch interior investigation item job kind landscape
    language lap layer length level life line location look lot love maintenance manner midair middle midnight
    midst mile minute mix mixture moment month more morning most motion name nap night nighttime nobody noon
    nothing number o'clock object one other others overview pack pair panorama part patch percent perspective
    photo photograph picture piece place plan plenty pm point portion pose position pound presentation problem
    process project purpose race range reflection region rest ride row scenario scene scenery season section
    selection selfie noise confines embrace hug kiss smile smirk cue series set setting shadow shape shot side
    sight sip situation size slab some somebody someone something sort space spot spring start state step storey
    story style summer sunset surface talk task team thing tier time top topic total tour trick trip turn type use
    variety version view walk way weather week weight width wind winter word work world year
""")
# Heads that count or hold what follows "of": "a pile of books".
VAGUE_WITH_OF = word_set(
    "herd flock crowd pile stack cluster fleet trio quartet slice load plethora glass cup can roll"
)
# In the singular after a number these qualify the next noun: "two story houses" need not be two.
UNIT_WORDS = word_set("""
    story storey level tier layer lane door way wheel seat seater person man foot inch mile day hour minute piece tone
    bedroom engine burner star string speed pound liter litre point pm am year week month color colour
""")
UNIT_PARTICIPLES = word_set("""
    wheeled legged tiered layered storied sided headed colored coloured handed faced eyed pronged toned pointed masted
    bladed lidded seated humped
""")

# Plurals that qualify the noun after them: "a sports car".
PLURAL_MODIFIERS = word_set("sports clothes airlines airways news goods arts savings jays sox states police cattle")
LY_NOUNS = word_set("family butterfly dragonfly belly jelly lily dolly bully gully assembly supply trolly fly italy")

# Nouns in -ing. Other words in -ing end a phrase if they follow its noun, as in "a man riding a horse".
ING_NOUNS = word_set("""
    building ceiling railing painting ring king wing string swing clothing awning wedding frosting icing topping
    dumpling duckling earring herring pudding dressing bedding stocking flooring siding paneling
""")
# Words in -ing that belong to the noun's name: "parking lot".
ING_MODIFIERS = word_set("""
    parking dining living cutting washing swimming waiting sitting walking baking fishing shopping mixing frying rocking
    racing landing bowling skating hiking sewing vending steering sleeping running training drinking changing serving
    folding rolling measuring boxing crossing sailing cooking dressing
""")
# Before these a word in -ing qualifies even after a noun: "a pedestrian crossing sign".
AFTER_ING = word_set("""
    sign signs signal signals lot lots room rooms area areas board boards machine machines pool pools meter meters path
    paths trail trails table tables chair chairs boat boats cart carts bag bags wheel wheels fountain fountains station
    rod rods gear pan pans pot pots pin bowl bowls space spaces garage deck
""")

# From such a word to the end of the sentence nothing is sure to be in the picture.
DENIALS = word_set("""
    without no not never nor neither nobody nothing none lacks lacking lack missing instead cannot devoid absent minus
""")
# What directly follows such a word is a comparison or a choice.
UNREAL_BEFORE = word_set("like as than or resembles resembling except besides")
# What follows such a word and "of" is not there itself, up to the end of the sentence.
UNREAL_OF = word_set(
    "statue statues sculpture sculptures figurine figurines shape form logo model replica memory costume"
)
# Before "of" these make a preposition: "on the side of a street".
VERB_PLACES = word_set(
    "top front side sides back middle edge end left right inside outside out bottom corner center bank"
)
# After these a caption says where the wearer is, not where they are.
WORN = word_set("""
    hat cap helmet shirt t-shirt jacket coat suit tie dress skirt vest hoodie sweater uniform costume outfit pants
    shorts jeans shoes boots gloves glasses sunglasses goggles scarf collar leash backpack bag purse bow robe
    apron mask wig bandana headphones necklace watch beard mustache
""")

ANIMALS = word_set("""
    dog cat horse cow sheep bird elephant giraffe zebra bear lion tiger rabbit duck fish monkey kitten puppy goat pig
    goose gull seagull pigeon parrot owl bull calf deer camel squirrel swan turtle penguin lamb ram ox buffalo bison
    wolf fox mouse rat frog snake lizard eagle hawk crow crane heron ostrich peacock flamingo pelican hummingbird
    chicken rooster hen turkey pony donkey mule llama kangaroo panda leopard cheetah dolphin whale shark butterfly bee
    animal creature hound collie retriever bulldog dachshund terrier pug
""")
PEOPLE = word_set("""
    man woman boy girl child person people baby lady guy kid toddler infant teenager adult male female gentleman couple
    bride groom mother father surfer skier snowboarder skateboarder skater player rider biker cyclist bicyclist
    motorcyclist racer driver passenger pedestrian worker officer policeman cop fireman firefighter soldier chef cook
    waiter waitress vendor farmer cowboy batter pitcher catcher umpire referee spectator student teacher doctor nurse
    singer musician photographer tourist traveler clown king queen crowd audience family
""")
ANIMALS_AND_PEOPLE = ANIMALS | PEOPLE
FOODS = word_set("""
    pizza cake sandwich apple banana orange donut doughnut bread cheese salad carrot broccoli soup egg fruit hotdog
    burger hamburger fries fry pasta spaghetti noodle rice meat steak sausage bacon ham vegetable veggie potato tomato
    onion pepper cucumber lettuce corn bean mushroom pumpkin grape strawberry berry lemon lime pear peach pineapple
    watermelon melon pie cookie cupcake muffin pastry pancake waffle dessert candy chocolate cereal taco burrito bagel
    toast omelette pretzel sushi pickle olive avocado food meal snack breakfast lunch dinner icecream
""")
# Before an animal's name these make it a thing, or food in "hot dog".
NOT_ALIVE = word_set("""
    toy teddy stuffed rubber plush plastic fake cartoon statue rocking carousel gingerbread hot computer optical
    wireless pc chess paper wooden wood metal glass stone ceramic snow garden inflatable baseball bronze lego balloon
""")
