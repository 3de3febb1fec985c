"""Phrases and names that hold words or ages of minors and mean something else.

Phrases are regular expressions over plain lower-case text (`plain_forms`) in the notation of `listed`. One belongs here
only if it cannot stand for a person under 18: "baby blue" does, "baby doll" and "school uniform" do not. What is left
of the text once they are taken out is searched again.
"""

from __future__ import annotations

from .minor_ages import FOREIGN_UNDER_18, FOREIGN_YEARS, GERMAN_UNDER_18, HALF, UNDER_18
from .minor_things import ANIMALS, BETWEEN, FOODS, FOREIGN_TERMS, FOREIGN_THINGS, OLD_ANIMALS, TERMS, THINGS, YOUNG
from .minor_words import listed

_SPAN = f"{UNDER_18}{HALF}~(?:years?|yrs?|months?|weeks?|days?)"
_DAYS = r"(?:\d{1,3}|[a-z]{3,9})~(?:months?|weeks?|days?)"
_BIRTHDAY = (
    r"(?:\d{1,2}(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|(?:thir|four|fif|six|seven)teenth)+b(?:irth|-)?days?"
)
# What may follow an old thing: a "12 year old guitar player" and a "12 year old stone mason" are persons.
_NO_PERSON = (
    "(?:+(?:tree|maple|plant|bottle|cask|barrel|wheel|slice|loaf|panel|array|estate|cheese|cub|pup|calf|bull|cow"
    "|building|shop|office|house|factory|engine|box|starter|stew|broth|sauce|jar|blend|stand|tower|wall|roof|yard)s?)?"
    r"(?=\s*(?:$|[^\w\s-])|+(?:in|on|at|of|for|from|to|with|without|by|near|under|over|behind|beside|before|after|above"
    "|below|along|across|against|around|among|between|through|into|onto|off|up|down|out|inside|outside|next|as|like"
    "|than|and|or|but|that|which|who|whose|is|are|was|were|has|had|asleep|alone|full|ready|still|being|left|worn|hung"
    "|made|built|sat|(?!climb|rid|rac|watch|box|keep|driv|collect|wrestl|fight|milk|groom|train)[a-z]{2,12}ing"
    r"|[a-z]{2,12}ed)\b)"
)
_DIGIT_WORDS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen"
_SHARP = "(?:+(?:flat|sharp)|[#♯♭])?"
_MUSIC = (
    "sonatas?|sonatinas?|concertos?|symphony|symphonies|preludes?|fugues?|nocturnes?|waltz|waltzes|mass|masses"
    "|quartets?|quintets?|trios?|etudes?|suites?|partitas?|ballades?|mazurkas?|polonaises?"
)
_ADULT_AGE = (
    r"(?:(?<!\d)(?<!\d\.)(?:19|[2-9]\d)(?![\d.]*\d)|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
    "(?:+(?:one|two|three|four|five|six|seven|eight|nine))?|nineteen)"
)
_ADULT = (
    "(?:wom[ae]n|m[ae]n|gentlem[ae]n|lady|ladies|guys?|actor|actress|singer|soldier|boxer|lawyer|doctor|teacher"
    "|professor|nurse|detective|assassin|bachelor|widow|widower|grandfather|grandmother|pensioner|comedian|politician"
    "|banker|chef)"
)
# Of what a "boy" or "girl" is one, not with whom: no sign of another person.
_OF_WHAT = r"(?:+(?:of|at|from|in)(?:+(?:the|a))?(?:+(?!(?:with|and|of|by|near|m[ae]n|wom[ae]n)\b)[a-z'’-]{3,14}){1,3})"
_NOT_SMALL = "".join(
    rf"(?<!{word}\s)"
    for word in ("little", "young", "small", "tiny", "baby", "school", "teen", "teenage", "cute", "lil")
)
_OF_AGE_NOW = (
    r"(?=[\s_-]*(?:$|[,;.!?)]|(?:years?|yrs?|yo|and|or|in|at|on|with|from|who|sitting|standing|posing|wearing)\b))"
)
# A girl, boy, son or daughter of a stated age of adults. "little girl, 25" stays.
_GROWN = rf"""
    (?:{_ADULT_AGE}~(?:years?|yrs?)~olds?|(?:college|university|sorority|fraternity|frat|grown
    |adult)(?:-aged?)?)+(?:girls?|boys?|sons?|daughters?|kids|lads?)(?![\s,(]{{1,3}}(?:(?:aged?|all|both|only|just|is
    |are)+){{0,2}}{UNDER_18})
    {_NOT_SMALL}(?:girls?|boys?|sons?|daughters?|lads?|lass(?:es)?)(?:+(?:(?:is|are|was|were|of|aged|over|turn(?:s|ed
    |ing))+)|,+(?:(?:is|are|all|both|aged?|each|over|about|now)+){{0,2}})(?:(?:all|both|aged|over
    |about)+){{0,2}}{_ADULT_AGE}{_OF_AGE_NOW}
    {_NOT_SMALL}(?:girls?|boys?|sons?|daughters?)+in+(?:her|his|their)+(?:(?:early|mid|late)~)?(?:twenties|thirties
    |forties|fifties|sixties|[2-9]0s)
    (?:baby~faced?|child~like|girlish|boyish)(?:+(?:old|young|smiling|handsome|shy|elderly)){{0,2}}(?:+{_ADULT})?(?:,
    |+(?:of|aged))?+{_ADULT_AGE}{_OF_AGE_NOW}
    {_NOT_SMALL}(?:girls|boys|lads)(?:{_OF_WHAT},)?+(?:(?:all|now|both|mostly)+){{0,2}}(?:in+their+(?:(?:early|mid
    |late)~)?(?:twen|thir|for|fif|six|seven|eigh|nine)ties|(?:well+)?(?:over|past)+{_ADULT_AGE}{_OF_AGE_NOW})
    (?:(?:one|some|two)+of+the|bad|old|rich|career)+(?:boys?|girls?|lads?)(?:{_OF_WHAT}|+{_ADULT}|+biker)?(?:,
    |+aged)+{_ADULT_AGE}{_OF_AGE_NOW} (?:girls?|boys|lads)['’]?+nights?+(?:out|in) girls['’]+night
    (?:sons?|daughters?)+in+law (?:grown(?:~up)?|adult)+(?:children|kids)
"""
# Things, trades and turns of speech, by the word in them.
_COMPOUNDS = rf"""
    orphan(?:ed)?+(?:drugs?|diseases?|works?|wells?|process(?:es)?|blocks?|lines?|sources?|pages?|planets?|files?
    |records?|nodes?|receptors?|genes?|stocks?|products?|packages?|asteroids?|sites?|elements?|tasks?|technolog(?:y
    |ies)|brands?|towns?|cars?|crops?|black+poster) widows+and+orphans(?=+(?:in+)?(?:typography|control))
    (?:wee+|small+|daily+)?tots?+of+(?:\w{{3,9}}+)?(?:{FOODS}|sloe|liquor) tots?+up tater+tots?
    (?:ist|war|sind|halb|seien|scheint|schon)+tot tot+glass(?:es)? mausetot
    (?:i|you|we|they|don['’]t|just|only|to|not|no|would|wouldn['’]t)+kid(?:+(?:around|you|myself|yourself))
    kid+(?:you+not|around|skin) whizz?~kids? kids?~proof kid+(?:shoes?|boots?|slippers?) kid~sized+(?:chairs?|tables?)
    new+kids?+on+the+block (?:poster|inner|brain)~child
    (?:kid|child|boy|girl)s?+at+heart(?=\s*(?:$|[,.;!?)]|(?:in|at|on|of|with|and)\b)) child['’]s+(?:pose|play)
    child-?bearing(?:+(?:age|hips|years))? child~free
    child+(?:support|benefits?|custody|tax|labou?r+laws?|protection|psycholog(?:y|ists?)|welfare|psychiatr(?:y|ists?)
    |safety|seats?|locks?|gates?|care|minders?|maintenance|development|trust+funds?|class(?:es)?+(?:in|of|inherits?)
    |tables?|selectors?|page|pid|theme|account|category|proofing|restraints?|endowment|therapists?|specialists?
    |advocates?|services)
    # Places with nobody in them, and grown-ups by their roles.
    (?:empty|abandoned|deserted|derelict|ruined|vacant|shuttered|disused|demolished)+(?:(?:old|rural|brick|village
    |soviet)+)?(?:(?:nursery|elementary|primary|grade|middle|junior|high|boarding|pre)~(?:school
    |high)(?:+(?:class~rooms?|corridors?|hall(?:way)?s?|playgrounds?))?|school+playgrounds?|kindergartens?|orphanages?
    |day~cares?|nurser(?:y|ies)|(?:child(?:ren)?['’]?s|kids['’]?|bab(?:y|ies)['’]?s?)+(?:playgrounds?|(?:bed)?rooms?
    |wards?|hospitals?))(?=+(?:in|at|on|with|under|by|after|near)\b|\s*(?:$|[,.;!?)]))
    (?:youth|children['’]?s|kids['’]|(?:boy|girl|cub)+scouts?|little+league|kindergarten|pre~school|day~care|juvenile
    |neonatal)+(?:(?:books?|choir|orchestra|team|football|soccer|hockey|ward|club|group|cent(?:re|er)|court|hospital
    |clinic)+)?(?:pastors?|ministers?|workers?|leaders?|coach(?:es)?|conductors?|counsel(?:l)?ors?|directors?|doctors?
    |nurses?|authors?|writers?|librarians?|entertainers?|therapists?|lawyers?|judges?|teachers?|tutors?|instructors?
    |officers?|principals?|surgeons?|dentists?|knife|knives|handbooks?|badges?|cookies?|cent(?:re|er)+(?:building|sign))
    (?:news|paper)~boy+(?:caps?|hats?) page~boy+(?:hair~cuts?|bobs?|hair~styles?) kid+(?:mohair|wool)
    childhood+(?:homes?|houses?)(?=+of) wire+nippers nippers+(?:and+pliers|in+a+toolbox) boys+of+summer
    juvenile+t\.?~rex
    (?:medical|law|university|college|phd|degree|undergraduate|mba|nursing|engineering|dental|veterinary
    |grad(?:uate)?)+students?(?:,?+in+their+(?:twen|thir)ties)?,?+years?+[1-7]
    children['’]?s?['’]?+(?:books?|hospitals?|museums?|literature|authors?|fiction|wards?+sign|department|illustrators?
    |publish(?:ers?|ing)|librar(?:y|ies)|wear|bookshops?|services|court) in+(?:its|their)+infancy
    infant+(?:formula|mortality|industr(?:y|ies)|seats?|car+seats?|of+prague)
    infancy+of+(?:the+)?(?:industry|cinema|aviation|flight|radio|film|computing|internet|photography|television)
    juvenile+(?:diabetes|(?:\w{{5,12}}+)?arthritis|courts?(?=+(?:building|judge|system))|court|law|justice|fiction
    |literature|hormones?|jokes?|antics|pranks?|foliage|leaves|myoclonic|wood|books?)
    adolescent+(?:medicine|psychology|psychiatry|idiopathic|humou?r) neonat(?:al|es?)+unit
    teen+(?:vogue|titans?|wolf|spirit|choice+awards?|numbers) teenage+(?:mutant+ninja|engineering|fanclub)
    temperatures?+in+the+(?:low+|mid+|high+)?teens tween+(?:frames?|animations?|engine|curves?)
    (?:sonic|eternal|everlasting|perpetual|of+eternal|dorian)+youth
    youth+(?:serum|elixir|potion|hostel(?:l?ing|s)?|dew|code+serum|preserve) (?:my|his|her|their)+lost+youth
    (?:the+)?minors+(?:league|baseball) (?:down|up|play(?:s|ed|ing)?|years?|pitching|season)+(?:in|from)+the+minors
    (?:friars?|rhomboid|thalass?aemia|thalassemia|friary)+minor
    (?:relatively|fairly|comparatively|seemingly|somewhat|extremely)+minor
    minor+in+(?:economics|history|physics|math(?:s|ematics)?|english|philosophy|biology|chemistry|psychology|sociology
    |business|computer+science|linguistics|journalism|statistics|political+science|engineering)(?=\s*(?:$|[,.;!?)]
    |(?:and|at|from)\b|degree)) minor+(?:but|yet|if)+\w{{4,14}}(?=+(?:detail|change|problem|issue|role|point|flaw))
    (?:nursery|pre|primary|elementary|grade|middle|high|junior|kindergarten|pre-?)~(?:schools?|high)+(?:buildings?
    |bus(?:es)?|teachers?|reunions?|gym(?:s|nasiums?)?|diplomas?|principals?|head(?:master|mistress|teacher)s?
    |stadiums?|football+(?:stadium|field|coach)|parking+lots?|coach(?:es)?|janitors?|librarians?|fields?
    |counsel(?:l)?ors?|musical|caretakers?|nurses?|diploma|signs?|(?:science|history|english|art|music|drama|biology
    |french|spanish)+teachers?|math(?:s|ematics)?|physics|chemistry|auditoriums?|dropouts?(?=+aged+[2-9]\d))
    puberty+blockers? pubescent+(?:lea(?:f|ves)|stems?|oaks?|petals?)
    teens+(?:and+twenties+)?of+the+(?:\d\dth|21st|last|twentieth|century)
    (?:kid|child|baby|children)~(?:friendly|proof(?:ed)?|safe) child~like+(?:wonder|joy|glee|enthusiasm|curiosity)
    girl~(?:boss|power) lads['’]?+night (?:hij[oa]s?|filh[oa]s?|figli[oa]?|filles?)+(?:ya+|ja+)?adult[oaei]s?
    (?:los|las)+[a-z]{{3,14}}s+son
    son+(?:mari|chien|chat|pere|frere|amie?|visage|manteau|chapeau|livre|travail|bureau|epouse|cheval|velo|jardin
    |sourire|regard|patron|oncle|epoux|equipe|corps|fauteuil|lit|pays|nom)
    grades?+(?:\d{{1,2}}|{_DIGIT_WORDS})+(?:bolts?|titanium|steel|stainless|sprains?|rapids?|listed|tears?|concussions?
    |tumou?rs?|cancers?|gliomas?|injur(?:y|ies)|hazards?|crossings?|climbs?|scrambles?|roads?|oil|fuel|timber|lumber
    |wool|papers?|leather|eggs?|diamonds?|alumini?um|screws?|nuts?|fasteners?|pitch|fevers?|burns?|stains?|syrup|honey
    |rails?|silicon|copper|silver|gems?|jade|coffee|tea|salmon|tuna|chain|hooks?|whitewater|hurricane|storm|iron|alloy
    |murmurs?|haze|ankle|strain|listing|bricks?|civil|building|hydrocephalus|astrocytoma|hemorrhoids?|marijuana|heart
    |vesico\w*|rapid|slopes?)
    year+(?:\d{{1,2}}|{_DIGIT_WORDS})+(?:budget|plans?|reports?|results?|ad|bc|bce|ce|anniversary|review|forecasts?
    |warranty|revenues?|accounts|sales|profits?|growth|progress|costs?|targets?|goals?|milestones?|marks?|cicadas?
    |vintage|edition|issue|volume|season|harvest|inflation|rent|payments?|dividends?|phase|update|data|audit|under
    |after(?!~school)|before|since|into) kindergarten+(?:cop|teachers?|buildings?) prom+dress(?:es)?
    daycare+(?:centers?|centres?|workers?|buildings?)
    daughter+(?:languages?|compan(?:y|ies)|products?|elements?|church(?:es)?|chromosomes?|chromatids?|colony|ions?)
    son+of+(?:man(?=+(?:by|painting))|god|sam) (?:prodigal|native|favou?rite)+sons?
    urchin+(?:barrens?|roe|haircut|gonads|shells?|divers?) (?:spiny|sea|purple|red|black|green)+urchins? munchkin+cats?
    urchins?+on+(?:the+)?(?:sea|ocean|reef) poppet+valves? nene+g(?:oo|ee)se cabin+boy+rum tweening
    (?:fiscal|model|tax|financial|calendar|light|lunar|budget|policy|regnal)+years?+\d{{1,2}}
    year+\d{{1,2}}+(?:of(?!+(?:school|secondary|primary|elementary|high|middle|her|his|their))|in+the+war)
    u-?1\d+(?:submarines?|u-?boats?|boats?) (?:submarine|u-?boat|boat|line|metro|station)+u-?1\d
    (?:{_SPAN}|{UNDER_18}~y(?:ears?|rs?)?)(?:~old(?=+(?:mortgage|lease|loan|marriage|contract|bond)))?+(?:{TERMS})
    age+of+\d+(?:seals|kingdoms|empires|stars|heroes)
"""
# Birthdays, and years that something has lasted.
_OF_THINGS = rf"""
    (?:{THINGS}|{OLD_ANIMALS})(?:['’]s?+(?:{_BIRTHDAY})|+(?:has+|have+|just+|recently+)?turn(?:s|ed|ing)?+{UNDER_18})
    (?:its|celebrates+(?:its|the))+(?:{_BIRTHDAY})
    (?:{_BIRTHDAY})+(?:cake+|party+)?(?:of|for)+(?:the|our|a|an|its|my|this|their)+(?:(?!girl|boy|child|kid
    |teen)[a-z]{{2,15}}+)?{BETWEEN}(?:{THINGS}|{OLD_ANIMALS})
    (?:{OLD_ANIMALS}|{FOODS}|{YOUNG})(?:(?:,|+(?:is|are|was))?+{_SPAN}~olds?|+aged+(?:for+|only+|just+
    |at+least+)?{UNDER_18}{HALF}~(?:years?|months?|weeks?|days?|hours?))
    (?:dry|wet|cask|oak|barrel|bottle|cave|air|well|wood|cellar|sherry|bourbon|whisky|rum|port)[\s-]aged+(?:for+
    |at+least+|over+|about+)?{_SPAN} aged+(?:for+)?{UNDER_18}(?:+to+\d{{1,2}})?~(?:hours?|minutes?)
    {_DAYS}~olds?+{BETWEEN}(?:{YOUNG})
    # In other languages.
    (?:{FOREIGN_THINGS})(?:,|+(?:(?:vieux|vieilles?)+)?(?:de|di|d['’]|von|mit))?+{FOREIGN_UNDER_18}+{FOREIGN_YEARS}
    {FOREIGN_UNDER_18}+{FOREIGN_YEARS}+(?:de|di|d['’])?~(?:{FOREIGN_TERMS})
    (?:{FOREIGN_TERMS})+(?:(?:de|di|von|por|per)+)?{FOREIGN_UNDER_18}+{FOREIGN_YEARS}
    {GERMAN_UNDER_18}~ja(?:e)?hr(?:ige[rsnm]?|e+alte[rsnm]?)+(?:[a-z]{{3,9}}+)?(?:{FOREIGN_THINGS}|{FOREIGN_TERMS})
    (?:chic[oa]s?|muchach[oa]s?|rapaz(?:es)?|raparigas?|ragazz[oaie]|garot[oa]s?|hij[oa]s?|filh[oa]s?|figli[oa]?
    |jeune+fille|fils|filles?|sohn|tochter)+(?:de|di|von)+(?:[2-9]\d|vingt|trente|quarante|cinquante|soixante|veinte
    |treinta|cuarenta|cincuenta|sesenta|venti|trenta|quaranta|cinquanta|vinte|trinta|quarenta
    |cinquenta)+(?:{FOREIGN_YEARS}|jahren)
    (?:bebes?|bab(?:y|ies)|cri[oa]s?+de|filhotes?+de)+(?:elefante?n?|elephant|phoque|foca|robben?|pingouin|pinguino?
    |panda|gorill?[ae]|singe|affe|macaco|mono|girafe|jirafa|tigre|lion|leone?|ours|oso|orso|urso|lowe|koala|hippopotame
    |hipopotamo|rinoceronte|dauphin|delfin|golfinho|baleine|ballena|balena|baleia|tortue|tortuga|canguro)s?
    in+(?:do|re|mi|fa|sol|la|si)(?:+(?:bemolle|diesis))?+minore erwachsene[nmrs]?+(?:sohne?|to(?:e)?chter|kinder)n?
    (?:et|avec|dans|sur|de|par|pour|sous|chez|sans|que|contre|vers|porte|promene|selon|entre)+son(?=+[a-z])(?!+(?:is
    |and|in|of|was|et+lumiere)\b)
    son+(?:los|las|muy|de|del|unos|unas|mas|tan|el|la|altos|altas|buenos|amigos|amigas|viejos|rojos|rojas|hermosas
    |adultos|ancianos|hombres|mujeres|iguales|grandes|blancos|blancas)
    (?:no|que|ellos|ellas|estos|estas|cuantos|hombres|mujeres|flores|casas|como)+son
    (?:hombre|mujer|ella|ele|ela|homem|mulher|que|quien|gato|perro|caballo|senora?|cachorro|caballero|soldado|rey
    |abuel[oa]|viej[oa])+bebes?(?=+[a-z])
    bebes?+(?:cafe|agua|vino|vinho|cerveza|cerveja|leche|leite|mucho|zumo|suco|ron|whisky|cha)
    (?:da[nñ]os|asuntos|problemas|detalles|lesiones|heridas|obras|artes|gastos|ordenes|cantidades|delitos|cambios
    |dioses|poetas|obra|ligas|mamiferos|animais|animales|ferimentos|danos|reparos|lesoes)+menores
    menores+(?:de|que)+[2-9]\d
    (?:fautes?|blessures?|planetes?|operations?|infractions?|peines?|tierces?|septiemes?|gammes?|roles?|oeuvres?
    |importance|modifications?|ligues?)+mineures? mineurs?+de+(?:fond|charbon|cuivre|houille|or|fer)
    mineurs?+(?:au|dans)+(?:charbon|fond|la+mine) garcons?+(?:de+)?(?:cafe|boucher|coiffeur|bureau|ecurie)(?:+sign)?
    vieilles?+filles? filles?+de+(?:chambre|joie) bon+enfant
    kinder+(?:schokolade|bueno|eggs?|surprise|riegel|joy|chocolates?) pes?+de+moleque niñ[oa]+interior baby-foot
    (?:el|la)+ni[nñ][oa]+(?:storms?|weather|years?|events?|effects?|southern|currents?|phenomenon|pattern|winter
    |de+la+costera) fenomeno+(?:de+|del+)?(?:el+)?ni[nñ]o chica+chica+boom meninas?+dos+olhos
"""
# What animals do with their young.
_MINDS = "(?:and|with|nursing|suckling|carrying|feeding|guarding|protecting|licking|cradling|nuzzling|grooming)"
# What is called baby, and what is for babies.
_BABY = listed(
    r"""
    carrots? spinach potato(?:es)? kale tomato(?:es)? leaf leaves greens? arugula beets? peas? squash broccoli onions?
    artichokes? bok+choy marrows? mushrooms? cucumbers? peppers? radish(?:es)? blues? pinks? yellow grand grands
    back+ribs ribs oil shower+cake steps? boom(?:ers?)? corns? monitors? shower bottles?(?!+fed) strollers? carriages?
    bugg(?:y|ies) wipes? food formula lotions? shampoos? soap gates? bump(?:s|+photo)? fever hairs? bangs tees?
    t-shirts? powders? cribs?(?=+(?:shop|store|aisle|in+a+shop|assembly)) carriers?(?=\W*$) registr(?:y|ies)
    names?+books? aspirins? swiss groot yoda(?:+mug)? clams? lima+beans? eggplants? aubergines? zucchinis? courgettes?
    fennel turnips? chard cress lettuces? romaine gems?+lettuces? rocket mozzarella sitters?
    name+(?:dictionar(?:y|ies)|books?|lists?) einstein gap rattles? pacifiers? bibs? cams? proof(?:ing|ed)? doll+sheep
    joggers? pianos? guinness bella+mushrooms portobellos? sweetcorn pak+choi watermelons? jackfruits? beef lilacs?
    bananas? pineapples? veg(?:gies|etables?)? salads? (?:toes?+)?succulents? cact(?:us|i) ferns aloes? orchids?
    bonsais? roses mint+leaves basil+leaves (?:mustard|beet)+greens
    (?:(?:oak|spider|rubber|snake|fig|olive|maple|pine|palm|jade|money|banana|lemon|tomato|apple|aloe)+)?(?:plants?|trees?)
    oaks maples pines saplings? seedlings? leeks? asparagus sprouts cabbages? cauliflowers? pumpkins gourds?
    mango(?:es)? pears? kiwis? avocados? coconuts? ginger+root sardines? anchovies ['’]?s+tears? prams? harp+seals?
    octopus(?:es)? squids? shrimps? eels? gouda cheeses? burgers? scallops? chickpeas
    """
)
# What is called minor.
_MINOR = listed(
    r"""
    chords? keys? scales? thirds? sixths? sevenths? seconds? tonality damages? scratch(?:es)? injur(?:y|ies) character
    characters leagues? leaguers? planets? setbacks? adjustments? changes? flaws? arcana repairs? issues? roads?
    earthquakes? quakes? differences? miracles? roles? edits? updates? bugs? burns? wounds? cuts? bruises? problems?
    defects? errors? mistakes? modifications? variations? imperfections? blemish(?:es)? accidents? collisions?
    crash(?:es)? gods? deit(?:y|ies) prophets? surger(?:y|ies) operations? procedures? ailments? illness(?:es)?
    inconveniences? nuisances? importance version versions release releases tweaks? degrees? premises? courts? ax[ei]s
    arcs? rivers? canals? highways? fender rust leaks? faults? glitch(?:es)? improvements? works(?=+by) corrections?
    offen[cs]es? infractions? violations? delays? traffic dents? dings? abrasions? fractures? sprains? strokes?
    symptoms? tremors? poets? novelists? composers? painters? celebrit(?:y|ies) officials? nobles? noblem[ae]n nobility
    penalt(?:y|ies) pieces? canons? basilicas? diameters? grooves? elements? alleles? salivary blood+types? friar friars
    tweaking outages? annoyances? disagreements? disputes? squabbles? fuss hiccups? hitch(?:es)? disruptions? turbulence
    floods? flooding incidents? mishaps? victor(?:y|ies) success(?:es)? defeats? losses loss gains? tasks? chores?
    duties duty jobs? expenses? costs? fees? fines? irritations? rash(?:es)? infections? pains? cosmetic cracks? chips?
    stains? discrepanc(?:y|ies) deviations? refinements? enhancements? alterations? revisions? amendments? additions?
    renovations? upgrades? key-?change modes? chord-?progression triads? ninths? pentatonics? intervals? blues
    tonalities subjects? aspects? factors? concerns? considerations? exceptions? threats? saints? kings+of villains?
    antagonists? subplots? reasons? technicalit(?:y|ies) detail-?s? counties theme themes lunar standstill
    tributar(?:y|ies) streets? lanes? peaks? ports? stations? airports? moons? satellites? eruptions? landslides?
    avalanches? aftershocks? hurricanes? storms? crimes? thefts? felonies felony misdemeanou?rs? royals? royalty
    aristocrats? disasters? fix(?:es)? spills? suits? politicians? bishops? craters? villages? temples? shrines?
    streams? creeks? hamlets? hills? catastrophes? casualties? concussions? ulcers?
    """
)
_OTHERS = rf"""
    (?:bab(?:y|ies)|infant|newborn|juvenile|adolescent|orphan(?:ed)?)+{BETWEEN}(?:{ANIMALS})
    (?:{OLD_ANIMALS})+(?:mother['’]?s?+(?:and|with)+(?:her|its)+)?(?:infants?|bab(?:y|ies)|newborns?|juveniles?
    |orphans?)(?!+(?:costume|outfit|onesie|suit|hat))
    # Of an animal that the text begins with; what is with "its baby" is an animal anywhere.
    (?:(?<![\s\S])(?:(?:a|an|the|two)+)?(?:(?!girl|boy|child|kid|teen|and|with)[a-z]{{3,9}}+){{0,2}}(?:{OLD_ANIMALS}
    |bears?)(?:+mothers?)?+{_MINDS}+(?:her|their)|(?:{ANIMALS})(?:+mothers?)?+{_MINDS}+its)+(?:(?:tiny|newborn|young
    |little|new)+)?(?:bab(?:y|ies)|infants?|newborns?)
    (?<![\s\S])(?:(?:a|an|the)+)?(?:(?:mother|nanny|mountain|female)+)?goats?+{_MINDS}+(?:her|its|their)+(?:(?:two
    |newborn|young|little)+)?kids?
    baby~(?:(?:red|green|gold(?:en)?|purple|white|plum|cherry|roma|new|yukon|chestnut|button|mixed|roasted
    |fresh)+)?(?:{_BABY}) (?:jelly|beanie|bush|ice+ice|cry)~bab(?:y|ies) baby['’]s?[\s-]breath
    sugar+bab(?:y|ies)+watermelons? kid+(?:leather|gloves?|suede)
    (?:goat|goat['’]s)+kids? kid+goats? no+kid(?:ding)?+gloves
    child~(?:resistant|safe|proof)+(?:caps?|locks?|lids?|packaging|bottles?)
    child+(?:process(?:es)?|windows?|nodes?|elements?|themes?|directive|components?)
    # Not "a minor" by itself.
    [b-g]{_SHARP}+minor(?=\s*(?:$|[,.;:)])) a+?(?:flat|sharp|[#♯♭])+minor
    [a-g]{_SHARP}+minor+(?:{_MUSIC}|chords?|scales?|keys?|progressions?)
    (?:{_MUSIC}|chord|key+of|scale+of)+(?:in+)?[a-g]{_SHARP}+minor in+[b-g]{_SHARP}+minor
    minor+(?:(?:car|traffic|road|bike|plumbing|roof|water|kitchen|knee|skin|head|facial|surgical|house|software
    |technical|structural|electrical|engine|paint|plot|stylistic|cosmetic|medical|court|grammatical|spelling|script
    |course|party)+)?(?:{_MINOR}) (?:ursa|canis|leo|asia|morris|psoas|teres|pectoralis)+minor mod[eo]+mineur
    tono+menor (?:adult|grown(?:~up)?|middle~aged|elderly)+(?:sons?|daughters?)
    daughter+?(?:cells?|boards?|cards?|nucle(?:us|i)|isotopes?) sons?+of+(?:a+)?guns?
    (?:pin-?up|bond|gibson|calendar|cover|weather|land|ring|grid|flapper|chorus|ziegfeld|vegas|career)+girls?
    girls['’]+(?:weekend|trip) good+(?:old|ol['’]?)+boys? (?:whipping|poster|toy)+boys?
    big+boy+(?:(?:steam+)?locomotive|engine|burger|restaurant)s? boys+will+be+boys little+boy+(?:atomic+|nuclear+)?bomb
    boys['’]+clubs? lads['’]?+(?:mags?|magazines?) boy+howdy old+boys?['’]?+(?:network|club) son+et+lumieres?
    oh+boy(?![a-z]) po['’]?+?boys?(?:+sandwich(?:es)?)? game~boy+(?:console|cartridge|advance|color)s?
    teeny[\s,-]{{1,3}}(?:tiny|weeny|bit) urchins?+(?:shell|spine)s?
    (?:low|mid|upper|high)+(?:to+(?:mid|upper)+)?teens(?=+(?:celsius|fahrenheit|degrees)) (?:fountain|elixir)+of+youth
    youth~hostels? juvenile+(?:plumage|feathers|humou?r) newborn+(?:stars?|planets?|galax(?:y|ies))
    enfants?[\s-]terribles? l?assie(?=[\s-]collies?)
    # Age of a thing or an animal, time that goes by, and numbers that are not ages.
    (?:{_SPAN}|{_DAYS})~old+{BETWEEN}(?:{OLD_ANIMALS}|{FOODS}|{THINGS}){_NO_PERSON}
    {_SPAN}~(?:{FOODS}|leases?|mortgages?|wars?)
    # Only where the thing is the subject: not "a person in a car is 12 years old".
    (?:(?<![\s\S])|(?<=[.,;]\s))(?:the|this|my|our|an?)+{BETWEEN}(?:{OLD_ANIMALS}|{FOODS}|{THINGS})+(?:(?:(?:that
    |which)+)?(?:is|are|was|were)+)?{_SPAN}~old (?:{FOODS})[\s,]{{1,3}}aged+(?:for+)?{_SPAN}(?!~old)
    aged+(?:for+)?{_SPAN}+(?:(?:in+)?(?:{FOODS})|in+(?:(?:oak|wooden|old|sherry|wine)+)?(?:oak|casks?|barrels?|wood
    |cellars?)) (?:ice|stone|bronze|iron|space|golden|dragon|new)+age+(?:\d|i{{1,5}}v?)
    (?:hace|desde|depuis|il+y+a|pendant|durante|por|per|apres|despues+de|vor
    |seit)+(?:hace+)?{FOREIGN_UNDER_18}+(?:{FOREIGN_YEARS}|jahren)(?!+alt) ha+{FOREIGN_UNDER_18}+anos
    {FOREIGN_UNDER_18}+{FOREIGN_YEARS}+(?:atras|despues|depois|fa|plus+tard|dopo|de+experiencia)
"""
PHRASES = " ".join((_GROWN, _COMPOUNDS, _OF_THINGS, _OTHERS))
# Names, in upper and lower case as they are written: "the Beach Boys", while "beach boys" are boys on a beach.
NAMES = r"""
    (?:Beach|Backstreet|Pet+Shop|Beastie|Oak+Ridge)+Boys (?:Fall+Out|Soulja|Danny|Game|Nature)+Boy Boy+George
    Boyz+II+Men La-Z-Boy (?:Spice|Golden|Indigo)+Girls Girls+Aloud Billy+the+Kid Sundance+Kid Cisco+Kid
    Kid+(?:Rock|Cudi|Creole|A)(?![a-z]) (?:Julia|Lee|Lincoln|Jane|Desmond)+Child Destiny[’']s+Child Childish+Gambino
    Child+Harold Sons+of+(?:Anarchy|Liberty|Norway|Ben) &+Sons and+Sons+(?:hardware|Hardware|Ltd|Inc|Co)(?![a-z])
    (?:Jersey|The+Lost|Trailer+Park|Hardy|Proud|Bowery|Pep|Sunshine|Nickel|Dead+End)+Boys(?!+(?:in|at|on)+)
    Bad+Boys+(?:II|2|for+Life) Boys+Don[’']t+Cry The+Boys+(?:poster|series|TV)
    The+Boy+(?:and+the+Heron|Who+Lived|Erased) About+a+Boy+(?=film|movie|poster|novel) Boy+(?:Meets+World|Erased)
    (?:Astro|Danny|Harley+Fat)+?Boy(?![a-z]) Boyz+n+the+Hood Boy(?:zone|genius) Beat+Boy Boy+Harsher Boys+(?:II|2)+Men
    The+Boy+in+the+Striped Boy+Scouts+of+America+(?:headquarters|building|logo)
    (?:Mean|Derry|Powerpuff|Calendar|Gilmore|2+Broke|Two+Broke|Cheetah)+?Girls(?!+(?:in|at|on)+)
    (?:Gossip|Gone|Tank|Uptown|Jessie[’']s)+?Girl(?![a-z])
    [Tt]he+Girl+(?:with+the+Dragon+Tattoo|on+the+Train|Who+Played|from+Ipanema|Next+Door) Girl,?+Interrupted
    Girls+Just+Want
    (?:Karate|Wimpy|Kentucky|Cincinnati|Spy|Whiz|Cabbage+Patch|Sour+Patch|Comeback|Heartbreak)+Kids?(?![a-z])
    New+Kids+on+the+Block I+Shrunk+the+Kids Kids[’']?+Choice Kids+(?:See+Ghosts|in+the+Hall|Are+Alright)
    Kid+(?:Icarus|Galahad|Laroi|Ink|Congo|Koala|Loco|Creole|Dynamite) Children+of+(?:Men|the+Corn|Dune|Bodom|Hurin)
    Midnight[’']s+Children City+of+Lost+Children Children[’']s+Crusade Childhood[’']s+End Child[’']s+Play Child+44
    Voodoo+Child Childs?+(?:Ballads?|Restaurants?) Rosemary[’']s+Baby Million+Dollar+Baby Bridget+Jones[’']s+Baby
    Bringing+Up+Baby
    Baby+(?:Driver|Yoda|Groot|Spice|Mama|Reindeer|Boom|Keem|Jane|Bjorn|Björn|Huey|Face+Nelson|Gap|Dior|Phat|Lips|Shark
    |Metal|Doc|One+More+Time) Beanie+Bab(?:y|ies) Jelly+Bab(?:y|ies) Water+Babies Ice+Ice+Baby Achtung+Baby Be+My+Baby
    The+Boss+Baby Bab(?:y|ies)+?[\"'’]?R[\"'’]?+Us Teen+(?:Vogue|Wolf|Titans|Choice|Top|Mom)
    Teenage+(?:Mutant+Ninja|Dream|Fanclub|Engineering|Wasteland|Kicks|Riot) Smells+Like+Teen Sixteen+Candles
    Seventeen+(?:[Mm]agazine|Again) 17+Again Sweet+Sixteen+by (?:13|Thirteen)+Going+on+(?:30|Thirty)
    The+Edge+of+Seventeen High+School+Musical Kindergarten+Cop School+of+Rock Rushmore Never+Been+Kissed Orphan+Black
    The+Orphan+Master
    [A-Z][a-z]{1,30}+and+Son(?:s)?(?=+(?:Ltd|Inc|Co|Garage|Plumbing|Butchers?|Builders|Bakery|Funeral|Hardware|Motors
    |Jewell?ers|shop|sign|store|van|truck|Removals)) (?:Steptoe|Sanford|Dombey|Harland|Wolff)+and+Sons? Sons+and+Lovers
    &+Son(?![a-z]) Son+of+(?:Man|God|Sam|Kong) Native+Son Sons+of+(?:the+Desert|Katie|Perdition) Mumford+and+Sons
    Coal+Miner[’']s+Daughter Ryan[’']s+Daughter
    (?:Captain|General|Farmer|Bonesetter|Time+Traveler|Calligrapher|Hangman)[’']s+Daughter Sonic+Youth
    Youth+(?:Dew|Lagoon|to+the+People) Missy+Elliott Lassie(?=+(?:Come|film|collie|movie|poster))
    Shota+(?:Rustaveli|Imanaga) Nena+(?=concert|live|album) (?:Captain|Billy|Jason|Sidney|Cole)+Kidd?(?![a-z])
    Juniors?+Mints? Little+(?:Women|Miss+Sunshine|Man+Tate|Richard|Italy|Boy+bomb) (?:Friars?|Order+of)+Minor Leo+Minor
    Gen+Alpha+Romeo American+Girl+(?:store|Place) Tiny+Tot(?:s)?+(?:van|sign) Toddlers?+&+Tiaras
    Daughters+of+the+American+Revolution Girl+with+a+Pearl+Earring Boy+with+the+Arab+Strap Minor+Swing Little+Prince
    (?:Material|Brown+Eyed|Funny|Valley)+Girl Blue+Boy Sweet+Child+O Child+in+Time Son+of+a+Preacher+Man Kid+Ory
    Father+and+Son(?=+by) The+Kid(?=+by|+Detective) Sonny+(?:Rollins|Liston|Bono|Stitt|and+Cher)
    Lolita(?=+by+(?:V|Nabokov))
    (?:El|La)+Niñ[oa](?=(?:+and+La+Niña|\W{1,3}(?:mapa|map|clima|temperat|oce|paci|sequ|lluvia|fen|weather|warm|chart)))
    Baby+(?:Ruth|Bel) Teen+Spirit Minor+Threat Ursa+Minor Canis+Minor Asia+Minor Morris+Minor
    (?:[Ii]n|[Kk]ey+of|[Cc]hord+of)+A+minor(?![A-Za-z]) (?<![A-Za-z])A(?:[#♯♭]|[+-](?:flat|sharp))+minor(?![A-Za-z])
"""
