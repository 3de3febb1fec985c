"""Words and stated ages of people under 18, harmless phrases with such words in them, and words that make it unsafe.

They are regular expressions over plain lower-case text (`plain_forms`); only names are in upper and lower case. Each
repetition is bounded or runs over one class of characters, so that a search takes time linear in the text.
"""

from __future__ import annotations

GAP = r"[\s_-]{1,3}"
_MAYBE = r"[\s_-]{0,3}"


def _listed(words: str) -> str:
    """Words in a table as alternatives; a gap in one is written `+`, one that may be missing `~`."""
    return "|".join(words.split()).replace("+", GAP).replace("~", _MAYBE)


# Words that stand for a person under 18, and for places and feasts of such people.
WORDS = _listed(
    r"""
    (?:(?:grand|step|school|god|foster)~)?(?:child(?:ren)?|kid(?:do|die|dy)?s?|sons?|daughters?|boys?|girls?)
    (?:(?:baby|little|small|young|tiny|lil|teen|cute)~)(?:child(?:ren)?|kids?|boys?|girls?)
    (?:paper|news|altar|choir)(?:boys?|girls?) nippers? young['’]uns? creches? kiddies kidz
    boyz girlz gurl[sz]? grl[sz]? childs childern
    child(?:hood|like|ish) bab(?:y|ies) infants? infancy newborns? neonates? toddlers? orphans? youngsters? youths?
    (?:pre~)?teen(?:[sz]|y|ies?|ish|age|aged|agers?|y~boppers?)? (?:pre~)?teen-age(?:d|rs?)?
    (?:pre~)?tween(?:s|ies?|agers?)? (?:pre~)?adolescen(?:ts?|ce) juveniles? minors? under~aged? underagers?
    (?:(?:pre|peri)~)?pub(?:escent|escence|ertal|erty) jail~bait nymphet(?:te)?s? sweet+(?:sixteen|16) barely+legal
    not+(?:yet+)?(?:of+legal+age|of+age|legal+age|adult) lolis? lolitas? shotas? (?:loli|shota|toddler)[ck]ons?
    pa?edo(?:s|phil(?:es?|ia|iacs?|ic))? csam
    (?:nursery|elementary|primary|grade|middle|junior|high)~school(?:s|ers?|ing)? pre~school(?:s|ers?)? pre-k k-12
    junior+high kinder~(?:gart|gard)(?:en|ner|ener)s? hs+(?:student|freshman|sophomore|junior|senior)s?
    babes?+in+arms orphanages? day~care (?:grade|grammar|elementary|primary)+pupils?
    school~(?:pupils?|uniforms?|aged?|skirts?) schoolmates? sixth~form(?:ers?)? (?:cub|brownie)+scouts?
    quincea[nñ]er[ao]s? (?:bar|bat|bas)~mitz?vahs? first+communion little+(?:ones?|lads?|lass(?:ie)?s?) tots? tykes?
    bairns? lads? lass(?:ie)?s? lasses urchins? rugrats? ankle-?biters?
    (?:little|baby|kid)+(?:sister|brother|sis|bro|cousin|niece|nephew)s?
    in+(?:(?:a|an|her|his|their)+)?(?:diaper|nappie|nappy)s? too+young+to+(?:drive|vote|drink|consent|marry|smoke)
    """
)
# Spanish, French, German, Italian and Portuguese, without accents (ñ stays).
FOREIGN = _listed(
    r"""
    niñ(?:[oa]s?|it[oa]s?|ez) (?:un|una|unos|unas|dos|tres)+nin[oa]s? nin[oa]s much?ach[oa]s? muchachit[oa]s?
    chic[oa]s chica un+chico menores menor+de+(?:edad|idade) bebes? hij[oa]s? colegial(?:a|as|es)? chiquill[oa]s?
    nen[ea]s? nenit[oa]s? chiquit[oa]s? (?:un|una)+menor jovencit[oa]s? parvul[oa]s? enfants?
    (?:petite|jeune)s?~filles? (?:une|la|les|des|deux)+filles? fillettes? garcon(?:net)?s? gamin(?:e?s?) gosses?
    (?:un|une|des|les|jeunes?)+ados? adolescentes? (?:un|une|des|les|deux)+mineure?s? mineures? nourrissons?
    ecolier(?:s|e|es)? ecoliere?s? lyceen(?:ne)?s? collegien(?:ne)?s? bambins?
    (?:ein|das|dem|mein|kleine[smn]?|junge[sn]?|nackte[sn]?)+kind(?:es|er|ern)?
    (?:zwei|drei|vier|die|der|viele|mehrere|mit|von|und|spielende|lachende|unsere|meine)+kindern? ma(?:e)?dchen
    ma(?:e)?del(?:s|n)? schulma(?:e)?dchen kinder+(?:spielen|lachen|am|im|auf|und|beim) jungs buben?
    sa(?:e)?uglinge?[ns]? kleinkind(?:er|ern)? (?:ein|kleine[rn]?|kleine)+jungen? minder~ja(?:e)?hrige?[rsnm]?
    jugendliche[rsnm]? schu(?:e)?ler(?:in|innen)? grundschu(?:e)?ler(?:in|innen)? grundschulen? to(?:e)?chter
    sohne?s? bambin[oaie] bimb[aei] (?:un|il|piccolo)+bimbo ragazz(?:[oaie]|in[oaie]|ett[oaie]) neonat[oaie]
    minorenn[ei] (?:un|do|tre|quattor|quin|se|dicias?set)dicenn[ei] figli[ao]? fanciull[oaie] adolescenti liceal[ei]
    criancas? criancinhas? menin[oa]s? garot[oa]s? garotinh[oa]s? raparigas? rapaz(?:es|inho)? filh[oa]s? moleques?
    """
)
# A few words each of other scripts, found within longer runs of letters.
SCRIPTS = (
    "少女|少年|女孩|男孩|儿童|兒童|孩子|小孩|婴儿|嬰兒|幼女|幼児|女の子|男の子|子供|子ども|こども|赤ちゃん|ロリ|ショタ|未成年|"
    "小学生|中学生|高校生|小學生|소녀|소년|어린이|아이들|아기|미성년|"
    "ребен|ребёно|девочк|мальчик|подрост|несовершеннолетн|младен|школьни|детск|дети|детей|"
    "طفل|أطفال|اطفال|קטינ|ילדה|ילדים|παιδι|κοριτσι|αγορι"
)
# Words that are also found with gaps, digits or signs among their letters. The short ones have a gap at every letter
# or at none: with a single gap they can be parts of two common words ("k id").
HIDDEN_WORDS = (
    "child", "children", "kids", "toddler", "teenage", "teenager", "preteen", "schoolgirl", "schoolboy", "underage",
    "infant", "adolescent", "juvenile", "minor", "minors", "newborn", "babies", "girls", "boys", "teens", "lolita",
)  # fmt: skip
SHORT_HIDDEN_WORDS = ("kid", "boy", "girl", "teen", "baby", "loli")
# Unsafe words that are found in the same way.
HIDDEN_UNSAFE_WORDS = (
    "naked", "nude", "nudity", "sexy", "sexual", "porn", "erotic", "nsfw", "bloody", "murder", "topless", "lingerie",
)  # fmt: skip

_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_TEENS = "ten|eleven|twelve|(?:thir|four|fif|six|seven)teen"
# "twenty-five" is not five.
_NO_TENS = "".join(rf"(?<!{tens}[\s_-])" for tens in _TENS.split("|"))
_DIGITS = r"(?=\d)(?<!\d)(?<!\d\.)(?:0?\d|1[0-7])(?:\.\d{1,2})?(?!\d)"
UNDER_18 = rf"(?:{_DIGITS}|(?=[otfsen]){_NO_TENS}(?:{_ONES})|(?=[tefs])(?:{_TEENS}))"
_UP_TO_18 = rf"(?:{_DIGITS}|(?<!\d)18(?!\d)|(?=[otfsen]){_NO_TENS}(?:{_ONES})|(?=[tefs])(?:{_TEENS})|eighteen)"
# What may follow where a bare 3 to 17 is read as an age: no unit and no noun, which the number would count.
_ALONE = (
    r"(?=[\s_]*(?:$|[,;!?)/]|\.(?!\d)|(?:years?|yrs?|yo|and|or|today|now|again|but|when|next|last|this|with|years|in"
    r"|at|on|yesterday|tomorrow|soon)\b))"
)
_AGE_ALONE = rf"(?:(?<!\d)(?<!\d\.)(?:[3-9]|1[0-7])(?![\d.]*\d)|three|four|five|six|seven|eight|nine|{_TEENS}){_ALONE}"
_HALF = rf"(?:{GAP}and{GAP}a{GAP}half)?"
_ORDINALS = (
    r"1st|2nd|3rd|(?:[4-9]|1[0-2])th|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
)
_BIRTHDAYS = rf"{_ORDINALS}|1[3-7]th|(?:thir|four|fif|six|seven)teenth"
_OF_ABOUT = r"(?:(?:of|is|at|about|around|approximately|between|from|only|just|barely|under|below)[\s:=_-]{0,3}){0,3}"
_YEARS = rf"(?:years?|yrs?|y){_MAYBE}(?:olds?|of{GAP}age|young)|yrs?(?!{_MAYBE}(?:of|in)\b)|y[\s./_-]{{0,2}}os?(?!-yo)"
_SEX = "(?:fe)?males?"
# Ages in figures and words.
AGES = (
    rf"{UNDER_18}(?:\+|-?ish)?(?:{_HALF}{_MAYBE}(?:{_YEARS})|{GAP}(?:summers|winters|springs){GAP}old)",
    # Not the y of an axis, of coordinates ("x 12 y 30"), of y-shaped or of y'all.
    rf"{_DIGITS}[\s_-]?y(?!-[a-z]|{_MAYBE}(?:ax[ei]s|coord|chrom|[=:\d])|['’])",
    rf"ages?d?[\s:=_-]{{0,3}}{_OF_ABOUT}{UNDER_18}(?!{_MAYBE}(?:hundred|thousand|million))",
    rf"(?:\d{{1,3}}|{_ONES}|{_TEENS}|eighteen){_MAYBE}(?:months?|weeks?|days?){_MAYBE}old",
    rf"thirteenagers?|6th{_MAYBE}form(?:ers?)?|both{GAP}{_AGE_ALONE}",
    # Under an age.
    rf"(?:under|below|(?:younger|less|fewer){GAP}than){GAP}(?:the{GAP})?age{GAP}(?:of{GAP})?{_UP_TO_18}",
    rf"younger{GAP}than{GAP}{_UP_TO_18}|(?:under|below){_MAYBE}(?:18|eighteen)s?(?!\d|{_MAYBE}(?:%|[a-z°$€£]))",
    rf"(?:under|below|less{GAP}than|fewer{GAP}than|up{GAP}to|at{GAP}most){GAP}{_UP_TO_18}{GAP}years?"
    rf"(?!{GAP}(?:ago|later))",
    rf"(?:less|fewer){GAP}than{GAP}(?:18|eighteen){_ALONE}|(?:under|below){GAP}{_AGE_ALONE}",
    rf"(?:under|below){GAP}(?:the{GAP})?(?:legal{GAP}(?:drinking{GAP})?age|age{GAP}of{GAP}(?:consent|majority))",
    r"under-(?:\d|1[0-8])s?(?!\d)|under[\s_]?(?:\d|1[0-8])s|u-?1[0-8]s?",
    rf"no{GAP}(?:older|more){GAP}than{GAP}{_AGE_ALONE}|not?{GAP}older{GAP}than{GAP}{UNDER_18}",
    rf"(?:not|isn['’]?t|wasn['’]?t|aren['’]?t){GAP}(?:(?:yet|even|quite|really|turned|over|above|older{GAP}than){GAP})"
    rf"{{0,2}}(?:1[3-8]|(?:thir|four|fif|six|seven|eigh)teen){_ALONE}",
    rf"(?:not|isn['’]?t|wasn['’]?t|aren['’]?t){GAP}{_UP_TO_18}{GAP}yet|noch{GAP}nicht{GAP}18",
    rf"(?:has|have|had)(?:n['’]?t|{GAP}not|{GAP}yet{GAP}to|{GAP}never){GAP}(?:yet{GAP})?"
    rf"(?:turn(?:ed)?|reach(?:ed)?){GAP}{_UP_TO_18}",
    rf"shy{GAP}of{GAP}(?:{_UP_TO_18}|adulthood)|before{GAP}adulthood|at{GAP}(?:thir|four|fif|six|seven)teen{_ALONE}",
    rf"between{GAP}(?:[3-9]|1[0-7]){GAP}and{GAP}(?:[4-9]|1[0-7]){_ALONE}",
    rf"age{GAP}(?:range|group|bracket)[\s:=-]{{0,3}}{UNDER_18}",
    rf"(?:almost|nearly|about{GAP}to{GAP}(?:be|turn)){GAP}(?:18{_ALONE}|eighteen{_ALONE}|{_AGE_ALONE})",
    rf"before{GAP}(?:(?:her|his|their|the){GAP})?(?:(?:turning|being){GAP})?(?:18|eighteen)(?:th)?(?=\W|$)",
    # A number after a verb or a word that makes it an age.
    rf"turn(?:s|ed|ing)?{GAP}(?:just{GAP}|only{GAP})?{_AGE_ALONE}",
    rf"(?:only|just|barely|merely|still){GAP}{_AGE_ALONE}",
    rf"(?:she|he|they|who|i|you|we|both)(?:['’](?:s|re|m)|{GAP}(?:is|are|am|was|were|be))"
    rf"{GAP}(?:(?:both|only|just|about|around|barely|still|like|now|all){GAP}){{0,2}}{_AGE_ALONE}",
    rf"(?:looks?|looked|looking|appears?|appearing|appeared|seems?){GAP}"
    rf"(?:(?:to|be|like|about|around|only|just|she|he|they|is|are|was|were|barely){GAP}){{0,4}}{_AGE_ALONE}",
    # "13, female", "female, 13", "12f" (not f/8, an aperture), "Anna, 13, ...".
    rf"(?<![\d/.])(?:[3-9]|1[0-7])(?:{_MAYBE}[,/;|]{_MAYBE}{_SEX}|{_MAYBE}[,/]{_MAYBE}[fm])(?![a-z])",
    r"[fm], ?(?:[89]|1[0-7])(?![\d.])",
    rf"(?<![\d/.])(?:[89]|1[0-7])(?:[\s_]?f)(?![a-z]|{_MAYBE}[./\d])",
    rf"(?:{_SEX}{GAP}1[0-7]|(?:{_SEX}|woman|man|model|student|person){_MAYBE}[,/(;]{_MAYBE}(?:[3-9]|1[0-7]))"
    r"(?=\s*(?:$|[,;.)]))",
    r"(?<![a-z])[a-z]{2,20}, ?(?:[3-9]|1[0-7])(?=,)",
    # Grades, birthdays and years of birth.
    rf"(?:{_ORDINALS}){_MAYBE}(?:graders?|grade{_MAYBE}(?:students?|pupils?|class(?:es|rooms?|mates?)?))",
    rf"in{GAP}(?:the{GAP})?(?:{_ORDINALS}){GAP}grade|(?:{_ORDINALS}){_MAYBE}grade{_ALONE}",
    rf"(?:grade|year|class){GAP}(?:\d|1[0-3]){GAP}(?:students?|pupils?)",
    rf"(?:{_BIRTHDAYS}){GAP}b(?:irth|-)?days?",
    rf"born{GAP}(?:(?:only|just|about|around|some){GAP})?{UNDER_18}{GAP}(?:years|months|weeks|days){GAP}ago",
    # Fixed, so that the same prompts are kept in any year: with the years it grows stricter, never laxer.
    r"(?:born|birth(?:date|day|[\s-]?year)?|b\.|dob|d\.o\.b\.?)[^\da-z]{0,4}(?:(?:in|on|of)[^\da-z]{1,3})?"
    r"(?:\d{1,2}[./-]){0,2}(?:2009|20[1-9]\d)",
)
_FOREIGN_NUMBERS = _listed(
    r"""
    tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete trois quatre
    cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept tre quattro cinque sei sette otto
    dieci undici dodici tredici quattordici quindici sedici diciassette quatro sete oito nove dez dezesseis
    dezasseis dezessete dezassete
    """
)
# "treinta y cinco", "trinta e cinco" and "vingt-cinq" are adults'.
_NO_FOREIGN_TENS = "".join(
    rf"(?<!{tens})"
    for tens in (" y ", " e ", *(f"{tens}[ -]" for tens in ["vingt", "trente", "quarante", "cinquante", "soixante"]))
)
_FOREIGN_UNDER_18 = rf"(?:{_DIGITS}|(?=[tcqsondzv]){_NO_FOREIGN_TENS}(?:{_FOREIGN_NUMBERS}))"
_GERMAN = """
    ein zwei drei vier fu(?:e)?nf sechs sieben acht neun zehn elf zwo(?:e)?lf dreizehn vierzehn fu(?:e)?nfzehn
    sechzehn siebzehn
    """
_GERMAN_UNDER_18 = rf"(?:{_DIGITS}|{_listed(_GERMAN)})"
_FOREIGN_YEARS = "(?:a[nñ]os?|ans?|anni)"
FOREIGN_AGES = (
    rf"{_FOREIGN_UNDER_18}{_MAYBE}{_FOREIGN_YEARS}",
    rf"(?:moins{GAP}de|menos{GAP}de|menor(?:es)?{GAP}de|sotto{GAP}i|meno{GAP}di|unter){GAP}18",
    rf"{_GERMAN_UNDER_18}{_MAYBE}ja(?:e)?hr(?:ige?[rsnm]?|e{GAP}alt)|(?:mit|von){GAP}{_GERMAN_UNDER_18}{GAP}jahren",
)

_OLD_ANIMALS = _listed(
    r"""
    elephants? giraffes? zebras? goats? sheep cows? calf calves horses? foals? ponies pony donkeys? deer pandas?
    lions? lioness(?:es)? tigers? leopards? cheetahs? monkeys? apes? gorillas? chimps? chimpanzees? orangutans?
    ducks? ducklings? chickens? geese goose swans? owls? eagles? hawks? falcons? gulls? seagulls? penguins? parrots?
    sparrows? flamingos? turtles? tortoises? alligators? crocodiles? lizards? snakes? iguanas? frogs? dragons?
    dinosaurs? fish salmon trouts? sharks? whales? dolphins? walrus octopus squids? dogs? pupp(?:y|ies) hounds?
    hares? squirrels? tapirs? crabs? lobsters? hyenas? meerkats? lemurs? mice mouse rats? hamsters? hedgehogs?
    raccoons? skunks? badgers? pigs? piglets? boars? hippos? hippopotamus rhinos? rhinoceros camels? llamas?
    alpacas? kangaroos? koalas? sloths? bats? moose elks? bison buffalos? yaks? antelopes? gazelles? mares?
    stallions? bulls? terriers? retrievers? labradors? poodles? collies? spaniels? shepherd+dogs? cats?
    """
)
# Animals whose names people have too: a young one is certainly an animal, one with an age is not.
_ANIMALS = "|".join(
    (
        _OLD_ANIMALS,
        _listed(
            "lambs? fawns? bears? birds? chicks? robins? seals? otters? kittens? fox(?:es)? wol(?:f|ves) rabbits? "
            "bunn(?:y|ies) animals?"
        ),
    )
)
_FOODS = _listed(
    r"""
    whisk(?:e?y|eys|ies) scotch bourbon rum brandy cognac wines? port tequila mezcal malt single+malt cheese cheddar
    gouda parmesan parmigiano balsamic vinegar ham bread loa(?:f|ves) pizza leftovers
    """
)
_THINGS = _listed(
    r"""
    cars? trucks? bus(?:es)? bikes? bicycles? motorcycles? boats? ships? trains? planes? cameras? laptops?
    computers? machines? engines? guitars? pianos? violins? bottles? newspapers? buildings? houses? barns? bridges?
    church(?:es)? castles? towers? trees? oaks? pines? firs? maples? bonsais? forests?
    """
)
_KINDS = (
    "red|blue|green|black|white|brown|grey|gray|old|used|rusty|oak|scotch|irish|highland|single|aged|fine|japanese|"
    "german|male|female|big|small|pet"
)
_BETWEEN = rf"(?:(?:{_KINDS}){GAP}){{0,2}}"
_SPAN = rf"{UNDER_18}{_HALF}{_MAYBE}(?:years?|yrs?|months?|weeks?|days?)"
_SHARP = rf"(?:{GAP}(?:flat|sharp)|[#♯♭])?"
_MUSIC = (
    "sonatas?|sonatinas?|concertos?|symphony|symphonies|preludes?|fugues?|nocturnes?|waltz|waltzes|mass|masses|"
    "quartets?|quintets?|trios?|etudes?|suites?|partitas?|ballades?|mazurkas?|polonaises?"
)
# Phrases that hold such words or ages and mean something else. A phrase belongs here only if it cannot stand for a
# person under 18: "baby blue" does, "baby doll" and "school uniform" do not.
PHRASES = (
    rf"(?:bab(?:y|ies)|infant|newborn|juvenile|adolescent|orphan(?:ed)?){GAP}"
    rf"(?:(?:african|asian|polar|grizzly|brown|black|white|gray|grey|sea|mountain|bald|green){GAP}){{0,2}}(?:{_ANIMALS})",
    rf"baby{GAP}(?:"
    + _listed(
        r"""
    carrots? corn spinach potato(?:es)? kale tomato(?:es)? lettuce leaf leaves greens? arugula beets? peas? squash
    broccoli onions? artichokes? bok+choy marrows? mushrooms? cucumbers? peppers? radish(?:es)? blues? pinks? yellow
    grand grands back+ribs ribs oil powder shower+cake steps? boom(?:ers?)? corns? yoda+mug trees?
    """
    )
    + ")",
    rf"baby['’]s?[\s-]breath|bush{_MAYBE}bab(?:y|ies)|sugar{GAP}bab(?:y|ies){GAP}watermelons?",
    rf"kid{GAP}(?:leather|gloves?|suede)|(?:goat|goat['’]s){GAP}kids?|kid{GAP}goats?|no{GAP}kid(?:ding)?{GAP}gloves",
    rf"child{_MAYBE}(?:resistant|safe|proof){GAP}(?:caps?|locks?|lids?|packaging|bottles?)",
    rf"child{GAP}(?:process(?:es)?|windows?|nodes?|elements?|themes?|directive|components?)",
    # Not "a minor" by itself.
    rf"[b-g]{_SHARP}{GAP}minor(?=\s*(?:$|[,.;:)]))|a{GAP}?(?:flat|sharp|[#♯♭]){GAP}minor",
    rf"[a-g]{_SHARP}{GAP}minor{GAP}(?:{_MUSIC}|chords?|scales?|keys?|progressions?)",
    rf"(?:{_MUSIC}|chord|key{GAP}of|scale{GAP}of){GAP}(?:in{GAP})?[a-g]{_SHARP}{GAP}minor",
    rf"in{GAP}[b-g]{_SHARP}{GAP}minor",
    rf"minor{GAP}(?:"
    + _listed(
        r"""
    chords? keys? scales? thirds? sixths? sevenths? seconds? pentatonic tonality damages? scratch(?:es)? details?
    injur(?:y|ies) character characters leagues? leaguers? planets? setbacks? adjustments? changes? flaws? arcana
    repairs? issues? roads? earthquakes? quakes? differences? miracles? roles? edits? updates? bugs? burns? wounds?
    cuts? bruises? problems? defects? errors? mistakes? modifications? variations? imperfections? blemish(?:es)?
    accidents? collisions? crash(?:es)? gods? deit(?:y|ies) prophets? surger(?:y|ies)
    operations? procedures? ailments? illness(?:es)? inconveniences? nuisances? importance version versions release
    releases tweaks? degrees? premises? courts? axis ax[ei]s arcs? rivers? canals? highways? fender rust leaks? faults?
    glitch(?:es)? improvements?
    corrections? offen[cs]es?
    """
    )
    + ")",
    rf"(?:ursa|canis|leo|asia|morris|psoas|teres|pectoralis){GAP}minor|mod[eo]{GAP}mineur|tono{GAP}menor",
    rf"(?:adult|grown(?:{_MAYBE}up)?|middle{_MAYBE}aged|elderly){GAP}(?:sons?|daughters?)",
    rf"daughter{GAP}?(?:cells?|boards?|cards?|nucle(?:us|i)|isotopes?)|sons?{GAP}of{GAP}(?:a{GAP})?guns?",
    rf"boy{GAP}howdy|old{GAP}boys?['’]?{GAP}(?:network|club)|son{GAP}et{GAP}lumieres?|oh{GAP}boy(?![a-z])",
    rf"po['’]?{GAP}?boys?(?:{GAP}sandwich(?:es)?)?|game{_MAYBE}boy{GAP}(?:console|cartridge|advance|color)s?",
    rf"teeny[\s,-]{{1,3}}(?:tiny|weeny|bit)|tater{GAP}tots?|sea{GAP}urchins?|urchins?{GAP}(?:shell|spine)s?",
    rf"(?:low|mid|upper|high){GAP}(?:to{GAP}(?:mid|upper){GAP})?teens(?={GAP}(?:celsius|fahrenheit|degrees))",
    rf"(?:fountain|elixir){GAP}of{GAP}youth|youth{_MAYBE}hostels?|juvenile{GAP}(?:plumage|feathers|humou?r)",
    rf"newborn{GAP}(?:stars?|planets?|galax(?:y|ies))",
    rf"(?:primary|elementary|grade|middle|high){_MAYBE}school{GAP}(?:buildings?|bus(?:es)?|teachers?|reunions?)",
    r"enfants?[\s-]terribles?|l?assie(?=[\s-]collies?)|kindergarten[\s-]teachers?",
    # Age of a thing or an animal, time that goes by, and numbers that are not ages.
    rf"{_SPAN}[\s_-]{{0,3}}olds?{GAP}{_BETWEEN}(?:{_OLD_ANIMALS}|{_FOODS}|{_THINGS})",
    rf"{_SPAN}[\s_-]{{0,3}}(?:{_FOODS}|leases?|mortgages?|wars?)",
    # Only where the thing is the subject: not "a person in a car is 12 years old".
    rf"(?:(?<![\s\S])|(?<=[.,;]\s))(?:the|this|my|our|an?){GAP}{_BETWEEN}(?:{_OLD_ANIMALS}|{_FOODS}|{_THINGS}){GAP}"
    rf"(?:is|are|was|were){GAP}{_SPAN}{_MAYBE}old",
    rf"(?:{_FOODS})[\s,]{{1,3}}aged{GAP}(?:for{GAP})?{_SPAN}(?!{_MAYBE}old)",
    rf"aged{GAP}(?:for{GAP})?{_SPAN}{GAP}(?:(?:in{GAP})?(?:{_FOODS})|in{GAP}(?:(?:oak|wooden|old|sherry|wine){GAP})?"
    rf"(?:oak|casks?|barrels?|wood|cellars?))",
    rf"(?:ice|stone|bronze|iron|space|golden|dragon|new){GAP}age{GAP}(?:\d|i+v?)",
    rf"(?:hace|desde|depuis|il{GAP}y{GAP}a|pendant|durante|por|per|apres|despues{GAP}de|vor|seit){GAP}"
    rf"(?:hace{GAP})?{_FOREIGN_UNDER_18}{GAP}(?:{_FOREIGN_YEARS}|jahren)(?!{GAP}alt)",
    rf"ha{GAP}{_FOREIGN_UNDER_18}{GAP}anos",
    rf"{_FOREIGN_UNDER_18}{GAP}{_FOREIGN_YEARS}{GAP}(?:atras|despues|depois|fa|plus{GAP}tard|dopo|de{GAP}experiencia)",
)
# Names, in upper and lower case as they are written: "the Beach Boys", while "beach boys" are boys on a beach.
NAMES = (
    r"(?:Beach|Backstreet|Pet Shop|Beastie|Oak Ridge) Boys",
    r"(?:Fall Out|Soulja|Danny|Game|Nature) Boy|Boy George|Boyz II Men|La-Z-Boy",
    r"(?:Spice|Golden|Indigo) Girls|Girls Aloud",
    r"Billy the Kid|Sundance Kid|Cisco Kid|Kid (?:Rock|Cudi|Creole|A)(?![a-z])",
    r"(?:Julia|Lee|Lincoln|Jane|Desmond) Child|Destiny[’']s Child|Childish Gambino|Child Harold",
    r"Sons of (?:Anarchy|Liberty|Norway|Ben)|& Sons|and Sons (?:hardware|Hardware|Ltd|Inc|Co)(?![a-z])",
    r"Daughters of the American Revolution",
    r"Baby (?:Ruth|Bel)|Teen Spirit|Minor Threat|Ursa Minor|Canis Minor|Asia Minor|Morris Minor",
    r"(?:[Ii]n|[Kk]ey of|[Cc]hord of) A minor(?![A-Za-z])|(?<![A-Za-z])A(?:[#♯♭]|[ -](?:flat|sharp)) minor(?![A-Za-z])",
)
# What makes a picture of a minor unsafe: stems of sexual and of violent words. Words from everyday captions of children
# are not among them, such as swimsuits, kisses, shots at a goal and toy guns.
SEXUAL = _listed(
    r"""
    nud(?:e|es|ity|ist|ists|ism) naked(?:ness)? topless bottomless unclothed undress(?:ed|es|ing)? disrobed?
    without+(?:any+)?cloth(?:es|ing) no+cloth(?:es|ing) not+wearing+anything wearing+nothing strip~tease
    stripp(?:er|ers|ing)(?!+(?:paint|wall)) stripped+naked lingerie panties thongs? negligees?
    sex(?:y|ual|ually|uali[sz]ed|uality|ist|ting)? sexiest porn[a-z]{0,10} nsfw xxx x-rated hentai ecchi
    erotic[a-z]{0,3} erotica fetish[a-z]{0,5} bondage bdsm kink[a-z]{0,3} seduc[a-z]{1,8} sensual(?:ly)?
    provocative(?:ly)? lewd(?:ly|ness)? lust(?:y|ful|fully)? arous[a-z]{1,4} orgasm[a-z]{0,4} masturbat[a-z]{1,4}
    genitals? genitalia penis(?:es)? vaginas? vulvas? nipples? areolas? breasts crotch(?:es)? buttocks
    butt(?:s)?(?=+(?:naked|exposed)) cleavage intercourse rap(?:ed|ist|ists|ing) rape molest[a-z]{0,7}
    abus(?:e|ed|er|ers|ing|ive) grop(?:e|ed|ing) prostitut[a-z]{1,4} escorts? incest[a-z]{0,4} upskirt explicit
    exposed+(?:body|chest|breasts?|skin) indecent desnud[a-z]{1,3} nue?s? nackt[a-z]{0,2} sess(?:o|uale|uali)
    sexu[a-z]{1,6} sexo nudo nuda nua pelad[oa]
    """
)
VIOLENT = _listed(
    r"""
    blood(?:y|ied|ier|stained|bath|shed)? bleed(?:s|ing)? gor(?:e|y) kill(?:s|ed|er|ers|ing)? murder[a-z]{0,4}
    corpses? cadavers? dead+(?:body|bodies)
    dead+(?:baby|child|children|boy|boys|girl|girls|kid|kids|infant|toddler|teen) decapitat[a-z]{1,4}
    behead[a-z]{0,4} dismember[a-z]{0,4} mutilat[a-z]{1,4} disembowel[a-z]{0,5} tortur[a-z]{1,4} stabb(?:ed|ing)
    strangl[a-z]{1,4} hanged lynch[a-z]{0,4} suicid[a-z]{1,3} self~harm[a-z]{0,3} gunshots? shot+dead
    beaten+(?:up|to|by) wounded massacr[a-z]{1,3} slaughter[a-z]{0,3} execut(?:ed|ion|ions) assault(?:s|ed|ing)?
    kidnap[a-z]{0,4} hostages? traffick[a-z]{1,3} drown(?:ed|ing) burn(?:ed|ing|t)+alive cannibal[a-z]{0,4}
    violen(?:t|tly|ce) brutal[a-z]{0,4} starv(?:ed|ing) enslaved
    """
)
