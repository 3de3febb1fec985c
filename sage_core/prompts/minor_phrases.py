"""Phrases that hold words or ages of minors and mean something else; names are in `minor_names`.

They are regular expressions over plain lower-case text (`plain_forms`). A phrase belongs here only if it cannot stand
for a person under 18: "baby blue" does, "baby doll" and "school uniform" do not. What is left of the
text once they are taken out is searched again.
"""

from __future__ import annotations

from .minor_ages import FOREIGN_UNDER_18, FOREIGN_YEARS, GERMAN_UNDER_18, HALF, UNDER_18
from .minor_things import ANIMALS, BETWEEN, FOODS, FOREIGN_TERMS, FOREIGN_THINGS, OLD_ANIMALS, TERMS, THINGS, YOUNG
from .minor_words import GAP, MAYBE, listed

_SPAN = rf"{UNDER_18}{HALF}{MAYBE}(?:years?|yrs?|months?|weeks?|days?)"
_DAYS = rf"(?:\d{{1,3}}|[a-z]{{3,9}}){MAYBE}(?:months?|weeks?|days?)"
_BIRTHDAY = (
    r"(?:\d{1,2}(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    rf"|(?:thir|four|fif|six|seven)teenth){GAP}b(?:irth|-)?days?"
)
# What may follow an old thing: a "12 year old guitar player" and a "12 year old stone mason" are persons.
_NO_PERSON = (
    rf"(?:{GAP}(?:tree|maple|plant|bottle|cask|barrel|wheel|slice|loaf|panel|array|estate|cheese|cub|pup|calf|bull|cow"
    rf"|building|shop|office|house|factory|engine|box|starter|stew|broth|sauce|jar|blend|stand|tower|wall|roof|yard)s?)?"
    rf"(?=\s*(?:$|[^\w\s-])|{GAP}(?:in|on|at|of|for|from|to|with|without|by|near|under|over|behind|beside|before|after|above|below"
    r"|along|across|against|around|among|between|through|into|onto|off|up|down|out|inside|outside|next|as|like|than"
    r"|and|or|but|that|which|who|whose|is|are|was|were|has|had|asleep|alone|full|ready|still|being|left|worn|hung|made|built|sat"
    r"|(?!climb|rid|rac|watch|box|keep|driv|collect|wrestl|fight|milk|groom|train)[a-z]{2,12}ing|[a-z]{2,12}ed)\b)"
)
_DIGIT_WORDS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen"
_SHARP = rf"(?:{GAP}(?:flat|sharp)|[#♯♭])?"
_MUSIC = (
    "sonatas?|sonatinas?|concertos?|symphony|symphonies|preludes?|fugues?|nocturnes?|waltz|waltzes|mass|masses|"
    "quartets?|quintets?|trios?|etudes?|suites?|partitas?|ballades?|mazurkas?|polonaises?"
)
_ADULT_AGE = (
    r"(?:(?<!\d)(?<!\d\.)(?:19|[2-9]\d)(?![\d.]*\d)|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
    rf"(?:{GAP}(?:one|two|three|four|five|six|seven|eight|nine))?|nineteen)"
)
_ADULT = (
    "(?:wom[ae]n|m[ae]n|gentlem[ae]n|lady|ladies|guys?|actor|actress|singer|soldier|boxer|lawyer|doctor|teacher|professor"
    "|nurse|detective|assassin|bachelor|widow|widower|grandfather|grandmother|pensioner|comedian|politician|banker|chef)"
)
# Of what a "boy" or "girl" is one, not with whom: no sign of another person.
_OF_WHAT = (
    rf"(?:{GAP}(?:of|at|from|in)(?:{GAP}(?:the|a))?(?:{GAP}(?!(?:with|and|of|by|near|m[ae]n|wom[ae]n)\b)[a-z'’-]{{3,14}})"
    "{1,3})"
)
_NOT_SMALL = "".join(
    rf"(?<!{word} )"
    for word in ["little", "young", "small", "tiny", "baby", "school", "teen", "teenage", "cute", "lil"]
)
_OF_AGE_NOW = (
    r"(?=[\s_-]*(?:$|[,;.!?)]|(?:years?|yrs?|yo|and|or|in|at|on|with|from|who|sitting|standing|posing|wearing)\b))"
)
# A girl, boy, son or daughter of a stated age of adults. "little girl, 25" stays.
_GROWN = (
    rf"(?:{_ADULT_AGE}{MAYBE}(?:years?|yrs?){MAYBE}olds?|(?:college|university|sorority|fraternity|frat|grown|adult)"
    rf"(?:-aged?)?){GAP}(?:girls?|boys?|sons?|daughters?|kids|lads?)(?![\s,(]{{1,3}}(?:(?:aged?|all|both|only|just"
    rf"|is|are){GAP}){{0,2}}{UNDER_18})",
    rf"{_NOT_SMALL}(?:girls?|boys?|sons?|daughters?|lads?|lass(?:es)?)(?:{GAP}(?:(?:is|are|was|were|of|aged"
    rf"|over|turn(?:s|ed|ing)){GAP})"
    rf"|,{GAP}(?:(?:is|are|all|both|aged?|each|over|about|now){GAP}){{0,2}})(?:(?:all|both|aged|over|about){GAP}){{0,2}}"
    rf"{_ADULT_AGE}{_OF_AGE_NOW}",
    rf"{_NOT_SMALL}(?:girls?|boys?|sons?|daughters?){GAP}in{GAP}(?:her|his|their){GAP}(?:(?:early|mid|late){MAYBE})?"
    r"(?:twenties|thirties|forties|fifties|sixties|[2-9]0s)",
    rf"(?:baby{MAYBE}faced?|child{MAYBE}like|girlish|boyish)(?:{GAP}(?:old|young|smiling|handsome|shy|elderly)){{0,2}}(?:{GAP}{_ADULT})?"
    rf"(?:,|{GAP}(?:of|aged))?{GAP}{_ADULT_AGE}{_OF_AGE_NOW}",
    rf"{_NOT_SMALL}(?:girls|boys|lads)(?:{_OF_WHAT},)?{GAP}(?:(?:all|now|both|mostly){GAP}){{0,2}}(?:in{GAP}their{GAP}"
    rf"(?:(?:early|mid|late){MAYBE})?(?:twen|thir|for|fif|six|seven|eigh|nine)ties|(?:well{GAP})?(?:over|past){GAP}{_ADULT_AGE}{_OF_AGE_NOW})",
    rf"(?:(?:one|some|two){GAP}of{GAP}the|bad|old|rich|career){GAP}(?:boys?|girls?|lads?)(?:{_OF_WHAT}|{GAP}{_ADULT}|{GAP}biker)?(?:,|{GAP}aged)"
    rf"{GAP}{_ADULT_AGE}{_OF_AGE_NOW}|(?:girls?|boys|lads)['’]?{GAP}nights?{GAP}(?:out|in)|girls['’]{GAP}night",
    rf"(?:sons?|daughters?){GAP}in{GAP}law|(?:grown(?:{MAYBE}up)?|adult){GAP}(?:children|kids)",
)
# Things, trades and turns of speech, by the word in them.
_COMPOUNDS = (
    rf"orphan(?:ed)?{GAP}(?:drugs?|diseases?|works?|wells?|process(?:es)?|blocks?|lines?|sources?|pages?|planets?"
    rf"|files?"
    rf"|records?|nodes?|receptors?|genes?|stocks?|products?|packages?|asteroids?|sites?|elements?|tasks?"
    rf"|technolog(?:y|ies)"
    rf"|brands?|towns?|cars?|crops?|black{GAP}poster)|widows{GAP}and{GAP}orphans(?={GAP}(?:in{GAP})?(?:typography"
    rf"|control))",
    rf"(?:wee{GAP}|small{GAP}|daily{GAP})?tots?{GAP}of{GAP}(?:\w{{3,9}}{GAP})?(?:{FOODS}|sloe|liquor)|tots?{GAP}up"
    rf"|tater{GAP}tots?"
    rf"|(?:ist|war|sind|halb|seien|scheint|schon){GAP}tot|tot{GAP}glass(?:es)?|mausetot",
    rf"(?:i|you|we|they|don['’]t|just|only|to|not|no|would|wouldn['’]t){GAP}kid(?:{GAP}(?:around|you|myself"
    rf"|yourself))|kid"
    rf"{GAP}(?:you{GAP}not|around|skin)|whizz?{MAYBE}kids?|kids?{MAYBE}proof|kid{GAP}(?:shoes?|boots?|slippers?)"
    rf"|kid{MAYBE}sized"
    rf"{GAP}(?:chairs?|tables?)|new{GAP}kids?{GAP}on{GAP}the{GAP}block",
    rf"(?:poster|inner|brain){MAYBE}child|(?:kid|child|boy|girl)s?{GAP}at{GAP}heart(?=\s*(?:$|[,.;!?)]|(?:in|at|on|of|with|and)\b))|child['’]s{GAP}(?:pose|play)|child-?bearing(?:{GAP}(?:age|hips|years))?"
    rf"|child"
    rf"{MAYBE}free|child{GAP}(?:support|benefits?|custody|tax|labou?r{GAP}laws?|protection|psycholog(?:y|ists?)"
    rf"|welfare"
    rf"|psychiatr(?:y|ists?)|safety|seats?|locks?|gates?|care|minders?|maintenance|development|trust{GAP}funds?"
    rf"|class(?:es)?"
    rf"{GAP}(?:in|of|inherits?)|tables?|selectors?|page|pid|theme|account|category|proofing|restraints?"
    rf"|endowment|therapists?|specialists?|advocates?|services)",
    # Places with nobody in them, and grown-ups by their roles.
    rf"(?:empty|abandoned|deserted|derelict|ruined|vacant|shuttered|disused|demolished){GAP}(?:(?:old|rural|brick|village|soviet)"
    rf"{GAP})?(?:(?:nursery|elementary|primary|grade|middle|junior|high|boarding|pre){MAYBE}(?:school|high)(?:{GAP}(?:class{MAYBE}rooms?"
    rf"|corridors?|hall(?:way)?s?|playgrounds?))?|school{GAP}playgrounds?|kindergartens?|orphanages?|day{MAYBE}cares?"
    rf"|nurser(?:y|ies)|(?:child(?:ren)?['’]?s|kids['’]?|bab(?:y|ies)['’]?s?){GAP}(?:playgrounds?|(?:bed)?rooms?|wards?|hospitals?))"
    rf"(?={GAP}(?:in|at|on|with|under|by|after|near)\b|\s*(?:$|[,.;!?)]))",
    rf"(?:youth|children['’]?s|kids['’]|(?:boy|girl|cub){GAP}scouts?|little{GAP}league|kindergarten|pre{MAYBE}school|day{MAYBE}care"
    rf"|juvenile|neonatal){GAP}(?:(?:books?|choir|orchestra|team|football|soccer|hockey|ward|club|group|cent(?:re|er)|court|hospital|clinic)"
    rf"{GAP})?(?:pastors?|ministers?|workers?|leaders?|coach(?:es)?|conductors?|counsel(?:l)?ors?|directors?|doctors?|nurses?"
    rf"|authors?|writers?|librarians?|entertainers?|therapists?|lawyers?|judges?|teachers?|tutors?|instructors?|officers?"
    rf"|principals?|surgeons?|dentists?|knife|knives|handbooks?|badges?|cookies?|cent(?:re|er){GAP}(?:building|sign))",
    rf"(?:news|paper){MAYBE}boy{GAP}(?:caps?|hats?)|page{MAYBE}boy{GAP}(?:hair{MAYBE}cuts?|bobs?|hair{MAYBE}styles?)"
    rf"|kid{GAP}(?:mohair|wool)|childhood{GAP}(?:homes?|houses?)(?={GAP}of)|wire{GAP}nippers|nippers{GAP}(?:and{GAP}pliers|in{GAP}a{GAP}"
    rf"toolbox)|boys{GAP}of{GAP}summer|juvenile{GAP}t\.?{MAYBE}rex",
    rf"(?:medical|law|university|college|phd|degree|undergraduate|mba|nursing|engineering|dental|veterinary|grad(?:uate)?){GAP}"
    rf"students?(?:,?{GAP}in{GAP}their{GAP}(?:twen|thir)ties)?,?{GAP}years?{GAP}[1-7]",
    rf"children['’]?s?['’]?{GAP}(?:books?|hospitals?|museums?|literature|authors?|fiction|wards?{GAP}sign|department"
    rf"|illustrators?"
    rf"|publish(?:ers?|ing)|librar(?:y|ies)|wear|bookshops?|services|court)",
    rf"in{GAP}(?:its|their){GAP}infancy|infant{GAP}(?:formula|mortality|industr(?:y|ies)|seats?|car{GAP}seats?"
    rf"|of{GAP}prague)",
    rf"infancy{GAP}of{GAP}(?:the{GAP})?(?:industry|cinema|aviation|flight|radio|film|computing|internet|photography"
    rf"|television)",
    rf"juvenile{GAP}(?:diabetes|(?:\w{{5,12}}{GAP})?arthritis|courts?(?={GAP}(?:building|judge|system))|court|law"
    rf"|justice|fiction"
    rf"|literature|hormones?|jokes?|antics|pranks?|foliage|leaves|myoclonic|wood|books?)",
    rf"adolescent{GAP}(?:medicine|psychology|psychiatry|idiopathic|humou?r)|neonat(?:al|es?){GAP}unit",
    rf"teen{GAP}(?:vogue|titans?|wolf|spirit|choice{GAP}awards?|numbers)|teenage{GAP}(?:mutant{GAP}ninja|engineering"
    rf"|fanclub)|"
    rf"temperatures?{GAP}in{GAP}the{GAP}(?:low{GAP}|mid{GAP}|high{GAP})?teens|tween{GAP}(?:frames?|animations?"
    rf"|engine|curves?)",
    rf"(?:sonic|eternal|everlasting|perpetual|of{GAP}eternal|dorian){GAP}youth|youth{GAP}(?:serum|elixir|potion"
    rf"|hostel(?:l?ing|s)?"
    rf"|dew|code{GAP}serum|preserve)|(?:my|his|her|their){GAP}lost{GAP}youth",
    rf"(?:the{GAP})?minors{GAP}(?:league|baseball)|(?:down|up|play(?:s|ed|ing)?|years?|pitching|season){GAP}(?:in"
    rf"|from)"
    rf"{GAP}the{GAP}minors|(?:friars?|rhomboid|thalass?aemia|thalassemia|friary){GAP}minor|(?:relatively|fairly"
    rf"|comparatively"
    rf"|seemingly|somewhat|extremely){GAP}minor|minor{GAP}in{GAP}(?:economics|history|physics|math(?:s|ematics)?"
    rf"|english|philosophy|biology|chemistry|psychology|sociology|business|computer{GAP}science|linguistics"
    rf"|journalism|statistics"
    rf"|political{GAP}science|engineering)(?=\s*(?:$|[,.;!?)]|(?:and|at|from)\b|degree))"
    rf"|minor{GAP}(?:but|yet|if){GAP}\w{{4,14}}(?={GAP}(?:detail|change|problem|issue|role|point|flaw))",
    rf"(?:nursery|pre|primary|elementary|grade|middle|high|junior|kindergarten|pre-?){MAYBE}(?:schools?"
    rf"|high){GAP}(?:buildings?"
    rf"|bus(?:es)?|teachers?|reunions?|gym(?:s|nasiums?)?|diplomas?|principals?|head(?:master|mistress|teacher)s?"
    rf"|stadiums?"
    rf"|football{GAP}(?:stadium|field|coach)|parking{GAP}lots?|coach(?:es)?|janitors?|librarians?|fields?"
    rf"|counsel(?:l)?ors?|musical"
    rf"|caretakers?|nurses?|diploma|signs?|(?:science|history|english|art|music|drama|biology|french|spanish){GAP}teachers?|math(?:s|ematics)?|physics|chemistry|auditoriums?"
    rf"|dropouts?(?={GAP}aged{GAP}[2-9]\d))",
    rf"puberty{GAP}blockers?|pubescent{GAP}(?:lea(?:f|ves)|stems?|oaks?|petals?)|teens{GAP}(?:and{GAP}twenties{GAP})?of{GAP}the{GAP}(?:\d\dth|21st|last|twentieth|century)|(?:kid|child|baby"
    rf"|children){MAYBE}(?:friendly"
    rf"|proof(?:ed)?|safe)|child{MAYBE}like{GAP}(?:wonder|joy|glee|enthusiasm|curiosity)|girl{MAYBE}(?:boss|power)"
    rf"|lads['’]?{GAP}night"
    rf"|(?:hij[oa]s?|filh[oa]s?|figli[oa]?|filles?){GAP}(?:ya{GAP}|ja{GAP})?adult[oaei]s?|(?:los"
    rf"|las){GAP}[a-z]{{3,14}}s{GAP}son"
    rf"|son{GAP}(?:mari|chien|chat|pere|frere|amie?|visage|manteau|chapeau|livre|travail|bureau|epouse|cheval|velo"
    rf"|jardin|sourire"
    rf"|regard|patron|oncle|epoux|equipe|corps|fauteuil|lit|pays|nom)",
    rf"grades?{GAP}(?:\d{{1,2}}|{_DIGIT_WORDS}){GAP}(?:bolts?|titanium|steel|stainless|sprains?|rapids?|listed"
    rf"|tears?|concussions?|tumou?rs?"
    rf"|cancers?|gliomas?|injur(?:y|ies)|hazards?|crossings?|climbs?|scrambles?|roads?|oil|fuel|timber|lumber|wool"
    rf"|papers?|leather|eggs?"
    rf"|diamonds?|alumini?um|screws?|nuts?|fasteners?|pitch|fevers?|burns?|stains?|syrup|honey|rails?|silicon|copper"
    rf"|silver"
    rf"|gems?|jade|coffee|tea|salmon|tuna|chain|hooks?|whitewater|hurricane|storm|iron|alloy|murmurs?|haze|ankle"
    rf"|strain|listing|bricks?"
    rf"|civil|building|hydrocephalus|astrocytoma|hemorrhoids?|marijuana|heart|vesico\w*|rapid|slopes?)",
    rf"year{GAP}(?:\d{{1,2}}|{_DIGIT_WORDS}){GAP}(?:budget|plans?|reports?|results?|ad|bc|bce|ce|anniversary|review"
    rf"|forecasts?|warranty"
    rf"|revenues?|accounts|sales|profits?|growth|progress|costs?|targets?|goals?|milestones?|marks?"
    rf"|cicadas?|vintage|edition|issue|volume|season|harvest|inflation|rent|payments?|dividends?|phase|update|data"
    rf"|audit|under|after(?!{MAYBE}school)|before|since|into)",
    rf"kindergarten{GAP}(?:cop|teachers?|buildings?)|prom{GAP}dress(?:es)?|daycare{GAP}(?:centers?|centres?|workers?"
    rf"|buildings?)",
    rf"daughter{GAP}(?:languages?|compan(?:y|ies)|products?|elements?|church(?:es)?|chromosomes?|chromatids?|colony"
    rf"|ions?)|son{GAP}of"
    rf"{GAP}(?:man(?={GAP}(?:by|painting))|god|sam)|(?:prodigal|native|favou?rite){GAP}sons?",
    rf"urchin{GAP}(?:barrens?|roe|haircut|gonads|shells?|divers?)|(?:spiny|sea|purple|red|black|green){GAP}urchins?"
    rf"|munchkin{GAP}cats?"
    rf"|urchins?{GAP}on{GAP}(?:the{GAP})?(?:sea|ocean|reef)|poppet{GAP}valves?|nene{GAP}g(?:oo|ee)se"
    rf"|cabin{GAP}boy{GAP}rum|tweening",
    rf"(?:fiscal|model|tax|financial|calendar|light|lunar|budget|policy|regnal){GAP}years?{GAP}\d{{1,2}}"
    rf"|year{GAP}\d{{1,2}}{GAP}(?:of(?!{GAP}(?:school|secondary|primary|elementary|high|middle|her|his|their))|in"
    rf"{GAP}the{GAP}war)",
    rf"u-?1\d{GAP}(?:submarines?|u-?boats?|boats?)|(?:submarine|u-?boat|boat|line|metro|station){GAP}u-?1\d",
    rf"(?:{_SPAN}|{UNDER_18}{MAYBE}y(?:ears?|rs?)?)(?:{MAYBE}old(?={GAP}(?:mortgage|lease|loan|marriage|contract"
    rf"|bond)))?{GAP}(?:{TERMS})",
    rf"age{GAP}of{GAP}\d{GAP}(?:seals|kingdoms|empires|stars|heroes)",
)
# Birthdays, and years that something has lasted.
_OF_THINGS = (
    rf"(?:{THINGS}|{OLD_ANIMALS})(?:['’]s?{GAP}(?:{_BIRTHDAY})|{GAP}(?:has{GAP}|have{GAP}|just{GAP}|recently{GAP})?turn(?:s|ed"
    rf"|ing)?{GAP}{UNDER_18})",
    rf"(?:its|celebrates{GAP}(?:its|the)){GAP}(?:{_BIRTHDAY})|(?:{_BIRTHDAY}){GAP}(?:cake{GAP}|party{GAP})?(?:of"
    rf"|for){GAP}(?:the|our|a|an|its"
    rf"|my|this|their){GAP}(?:(?!girl|boy|child|kid|teen)[a-z]{{2,15}}{GAP})?{BETWEEN}(?:{THINGS}|{OLD_ANIMALS})",
    rf"(?:{OLD_ANIMALS}|{FOODS}|{YOUNG})(?:(?:,|{GAP}(?:is|are|was))?{GAP}{_SPAN}{MAYBE}olds?|{GAP}aged{GAP}(?:for{GAP}"
    rf"|only{GAP}|just{GAP}|at{GAP}least{GAP})?{UNDER_18}{HALF}{MAYBE}(?:years?|months?|weeks?|days?|hours?))",
    rf"(?:dry|wet|cask|oak|barrel|bottle|cave|air|well|wood|cellar|sherry|bourbon|whisky|rum"
    rf"|port)[\s-]aged{GAP}(?:for{GAP}|at{GAP}"
    rf"least{GAP}|over{GAP}|about{GAP})?{_SPAN}"
    rf"|aged{GAP}(?:for{GAP})?{UNDER_18}(?:{GAP}to{GAP}\d{{1,2}})?{MAYBE}(?:hours?|minutes?)",
    rf"{_DAYS}{MAYBE}olds?{GAP}{BETWEEN}(?:{YOUNG})",
    # In other languages.
    rf"(?:{FOREIGN_THINGS})(?:,|{GAP}(?:(?:vieux|vieilles?){GAP})?(?:de|di|d['’]|von|mit))?{GAP}{FOREIGN_UNDER_18}{GAP}{FOREIGN_YEARS}",
    rf"{FOREIGN_UNDER_18}{GAP}{FOREIGN_YEARS}{GAP}(?:de|di|d['’])?{MAYBE}(?:{FOREIGN_TERMS})",
    rf"(?:{FOREIGN_TERMS}){GAP}(?:(?:de|di|von|por|per){GAP})?{FOREIGN_UNDER_18}{GAP}{FOREIGN_YEARS}",
    rf"{GERMAN_UNDER_18}{MAYBE}ja(?:e)?hr(?:ige[rsnm]?"
    rf"|e{GAP}alte[rsnm]?){GAP}(?:[a-z]{{3,9}}{GAP})?(?:{FOREIGN_THINGS}|{FOREIGN_TERMS})",
    rf"(?:chic[oa]s?|muchach[oa]s?|rapaz(?:es)?|raparigas?|ragazz[oaie]|garot[oa]s?|hij[oa]s?|filh[oa]s?|figli[oa]?"
    rf"|jeune{GAP}fille|fils|filles?|sohn|tochter)"
    rf"{GAP}(?:de|di|von){GAP}(?:[2-9]\d|vingt|trente|quarante|cinquante|soixante|veinte|treinta|cuarenta|cincuenta|sesenta"
    rf"|venti|trenta|quaranta|cinquanta|vinte|trinta|quarenta|cinquenta){GAP}(?:{FOREIGN_YEARS}|jahren)"
    rf"|(?:bebes?|bab(?:y|ies)|cri[oa]s?{GAP}de|filhotes?{GAP}de){GAP}(?:elefante?n?|elephant|phoque|foca|robben?|pingouin"
    rf"|pinguino?|panda|gorill?[ae]|singe|affe|macaco|mono|girafe|jirafa|tigre|lion|leone?|ours|oso|orso|urso|lowe|koala"
    rf"|hippopotame|hipopotamo|rinoceronte|dauphin|delfin|golfinho|baleine|ballena|balena|baleia|tortue|tortuga|canguro)s?"
    rf"|in{GAP}(?:do|re|mi|fa|sol|la|si)(?:{GAP}(?:bemolle|diesis))?{GAP}minore|erwachsene[nmrs]?{GAP}(?:sohne?|to(?:e)?chter|kinder)n?",
    rf"(?:et|avec|dans|sur|de|par|pour|sous|chez|sans|que|contre|vers|porte|promene|selon"
    rf"|entre){GAP}son(?={GAP}[a-z])(?!{GAP}(?:is|and|in"
    rf"|of|was|et{GAP}lumiere)\b)|son{GAP}(?:los|las|muy|de|del|unos|unas|mas|tan|el|la|altos|altas|buenos|amigos"
    rf"|amigas|viejos|rojos|rojas"
    rf"|hermosas|adultos|ancianos|hombres|mujeres|iguales|grandes|blancos|blancas)|(?:no|que|ellos|ellas|estos|estas"
    rf"|cuantos|hombres|mujeres"
    rf"|flores|casas|como){GAP}son",
    rf"(?:hombre|mujer|ella|ele|ela|homem|mulher|que|quien|gato|perro|caballo|senora?|cachorro|caballero|soldado|rey"
    rf"|abuel[oa]|viej[oa])"
    rf"{GAP}bebes?(?={GAP}[a-z])|bebes?{GAP}(?:cafe|agua|vino|vinho|cerveza|cerveja|leche|leite|mucho|zumo|suco|ron"
    rf"|whisky|cha)",
    rf"(?:da[nñ]os|asuntos|problemas|detalles|lesiones|heridas|obras|artes|gastos|ordenes|cantidades|delitos|cambios"
    rf"|dioses|poetas|obra"
    rf"|ligas|mamiferos|animais|animales|ferimentos|danos|reparos|lesoes){GAP}menores|menores{GAP}(?:de"
    rf"|que){GAP}[2-9]\d|(?:fautes?"
    rf"|blessures?|planetes?|operations?|infractions?|peines?|tierces?|septiemes?|gammes?|roles?|oeuvres?|importance"
    rf"|modifications?"
    rf"|ligues?){GAP}mineures?|mineurs?{GAP}de{GAP}(?:fond|charbon|cuivre|houille|or|fer)|mineurs?{GAP}(?:au"
    rf"|dans){GAP}(?:charbon|fond|la{GAP}mine)",
    rf"garcons?{GAP}(?:de{GAP})?(?:cafe|boucher|coiffeur|bureau|ecurie)(?:{GAP}sign)?|vieilles?{GAP}filles?"
    rf"|filles?{GAP}de{GAP}(?:chambre|joie)"
    rf"|bon{GAP}enfant|kinder{GAP}(?:schokolade|bueno|eggs?|surprise|riegel|joy|chocolates?)|pes?{GAP}de{GAP}moleque"
    rf"|niñ[oa]{GAP}interior|baby-foot"
    rf"|(?:el|la){GAP}ni[nñ][oa]{GAP}(?:storms?|weather|years?|events?|effects?|southern|currents?|phenomenon"
    rf"|pattern|winter|de{GAP}la{GAP}costera)"
    rf"|fenomeno{GAP}(?:de{GAP}|del{GAP})?(?:el{GAP})?ni[nñ]o|chica{GAP}chica{GAP}boom|meninas?{GAP}dos{GAP}olhos|娘婿",
)
# What animals do with their young.
_MINDS = "(?:and|with|nursing|suckling|carrying|feeding|guarding|protecting|licking|cradling|nuzzling|grooming)"
# Phrases that hold such words or ages and mean something else. A phrase belongs here only if it cannot stand for a
# person 18: "baby blue" does, "baby doll" and "school uniform" do not.
PHRASES = (
    rf"(?:bab(?:y|ies)|infant|newborn|juvenile|adolescent|orphan(?:ed)?){GAP}"
    rf"{BETWEEN}(?:{ANIMALS})",
    rf"(?:{OLD_ANIMALS}){GAP}(?:mother['’]?s?{GAP}(?:and|with){GAP}(?:her|its){GAP})?(?:infants?|bab(?:y|ies)|newborns?|juveniles?"
    rf"|orphans?)(?!{GAP}(?:costume|outfit|onesie|suit|hat))",
    # Of an animal that the text begins with; what is with "its baby" is an animal anywhere.
    rf"(?:(?<![\s\S])(?:(?:a|an|the|two){GAP})?(?:(?!girl|boy|child|kid|teen|and|with)[a-z]{{3,9}}{GAP}){{0,2}}(?:{OLD_ANIMALS}|bears?)"
    rf"(?:{GAP}mothers?)?{GAP}{_MINDS}{GAP}(?:her|their)|(?:{ANIMALS})(?:{GAP}mothers?)?{GAP}{_MINDS}{GAP}its){GAP}"
    rf"(?:(?:tiny|newborn|young|little|new){GAP})?(?:bab(?:y|ies)|infants?|newborns?)",
    rf"(?<![\s\S])(?:(?:a|an|the){GAP})?(?:(?:mother|nanny|mountain|female){GAP})?goats?{GAP}{_MINDS}{GAP}(?:her|its|their)"
    rf"{GAP}(?:(?:two|newborn|young|little){GAP})?kids?",
    rf"baby{MAYBE}(?:(?:red|green|gold(?:en)?|purple|white|plum|cherry|roma|new|yukon|chestnut|button|mixed|roasted|fresh){GAP})?(?:"
    + listed(
        r"""
    carrots? corn spinach potato(?:es)? kale tomato(?:es)? lettuce leaf leaves greens? arugula beets? peas? squash
    broccoli onions? artichokes? bok+choy marrows? mushrooms? cucumbers? peppers? radish(?:es)? blues? pinks? yellow
    grand grands back+ribs ribs oil powder shower+cake steps? boom(?:ers?)? corns? trees? monitors? shower
    bottles?(?!+fed) strollers? carriages? bugg(?:y|ies) wipes? food formula lotions? shampoos? soap gates?
    bump(?:s|+photo)? fever hairs? bangs tees? t-shirts? powders? cribs?(?=+(?:shop|store|aisle|in+a+shop|assembly))
    carriers?(?=\W*$) registr(?:y|ies) names?+books? aspirins? swiss groot yoda(?:+mug)? clams? lima+beans? eggplants?
    aubergines? zucchinis? courgettes? fennel turnips? chard cress lettuces? romaine gems?+lettuces? rocket mozzarella
    sitters? name+(?:dictionar(?:y|ies)|books?|lists?) einstein gap rattles? pacifiers? bibs? cams? proof(?:ing|ed)?
    doll+sheep joggers? pianos? guinness bella+mushrooms portobellos? sweetcorn pak+choi watermelons? jackfruits? beef
    lilacs? bananas? pineapples? veg(?:gies|etables?)? salads? (?:toes?+)?succulents? cact(?:us|i) ferns aloes? orchids?
    bonsais? roses mint+leaves basil+leaves (?:mustard|beet)+greens
    (?:(?:oak|spider|rubber|snake|fig|olive|maple|pine|palm|jade|money|banana|lemon|tomato|apple|aloe)+)?(?:plants?|trees?)
    oaks maples pines saplings? seedlings? leeks? asparagus sprouts cabbages? cauliflowers? pumpkins gourds?
    mango(?:es)? pears? kiwis? avocados? coconuts? ginger+root sardines? anchovies ['’]?s+tears? prams? harp+seals?
    octopus(?:es)? squids? shrimps? eels? gouda cheeses? burgers? scallops? chickpeas
    """
    )
    + ")",
    rf"(?:jelly|beanie|bush|ice{GAP}ice|cry){MAYBE}bab(?:y|ies)|crybab(?:y|ies)|baby['’]s?[\s-]breath"
    rf"|bush{MAYBE}bab(?:y|ies)|sugar{GAP}bab(?:y|ies){GAP}watermelons?",
    rf"kid{GAP}(?:leather|gloves?|suede)|(?:goat|goat['’]s){GAP}kids?|kid{GAP}goats?|no{GAP}kid(?:ding)?{GAP}gloves",
    rf"child{MAYBE}(?:resistant|safe|proof){GAP}(?:caps?|locks?|lids?|packaging|bottles?)",
    rf"child{GAP}(?:process(?:es)?|windows?|nodes?|elements?|themes?|directive|components?)",
    *_GROWN,
    # Not "a minor" by itself.
    rf"[b-g]{_SHARP}{GAP}minor(?=\s*(?:$|[,.;:)]))|a{GAP}?(?:flat|sharp|[#♯♭]){GAP}minor",
    rf"[a-g]{_SHARP}{GAP}minor{GAP}(?:{_MUSIC}|chords?|scales?|keys?|progressions?)",
    rf"(?:{_MUSIC}|chord|key{GAP}of|scale{GAP}of){GAP}(?:in{GAP})?[a-g]{_SHARP}{GAP}minor",
    rf"in{GAP}[b-g]{_SHARP}{GAP}minor",
    rf"minor{GAP}(?:(?:car|traffic|road|bike|plumbing|roof|water|kitchen|knee|skin|head|facial|surgical|house|software|technical"
    rf"|structural|electrical|engine|paint|plot|stylistic|cosmetic|medical|court|grammatical|spelling|script|course|party){GAP})?(?:"
    + listed(
        r"""
    chords? keys? scales? thirds? sixths? sevenths? seconds? pentatonic tonality damages? scratch(?:es)? details?
    injur(?:y|ies) character characters leagues? leaguers? planets? setbacks? adjustments? changes? flaws? arcana
    repairs? issues? roads? earthquakes? quakes? differences? miracles? roles? edits? updates? bugs? burns? wounds?
    cuts? bruises? problems? defects? errors? mistakes? modifications? variations? imperfections? blemish(?:es)?
    accidents? collisions? crash(?:es)? gods? deit(?:y|ies) prophets? surger(?:y|ies) operations? procedures?
    ailments? illness(?:es)? inconveniences? nuisances? importance version versions release releases tweaks? degrees?
    premises? courts? axis ax[ei]s arcs? rivers? canals? highways? fender rust leaks? faults? glitch(?:es)?
    improvements? works(?=+by) corrections? offen[cs]es? infractions? violations? delays? traffic dents? dings?
    abrasions? fractures? sprains? strokes? symptoms? tremors? poets? novelists? composers? painters?
    celebrit(?:y|ies) officials? nobles? noblem[ae]n nobility penalt(?:y|ies) pieces? canons? basilicas? diameters?
    grooves? elements? alleles? salivary blood+types? friar friars tweaking outages? annoyances? disagreements?
    disputes? squabbles? fuss hiccups? hitch(?:es)? disruptions? turbulence floods? flooding incidents? mishaps?
    victor(?:y|ies) success(?:es)? defeats? losses loss gains? tasks? chores? duties duty jobs? expenses? costs? fees?
    fines? irritations? rash(?:es)? infections? pains? cosmetic cracks? chips? stains? discrepanc(?:y|ies) deviations?
    refinements? enhancements? alterations? revisions? amendments? additions? modification renovations? upgrades?
    key-?change modes? chord-?progression triads? ninths? pentatonics? intervals? blues tonalities subjects? aspects?
    factors? concerns? considerations? exceptions? threats? saints? kings+of villains? antagonists? subplots? reasons?
    technicalit(?:y|ies) detail-?s? counties theme themes lunar standstill tributar(?:y|ies) streets? lanes? peaks?
    ports? stations? airports? moons? satellites? eruptions? landslides? avalanches? aftershocks? hurricanes? storms?
    crimes? thefts? felonies felony misdemeanou?rs? royals? royalty aristocrats? disasters? fix(?:es)? spills? suits?
    politicians? bishops? craters? villages? temples? shrines? streams? creeks? hamlets? hills? catastrophes?
    casualties? concussions? ulcers?
    """
    )
    + ")",
    rf"(?:ursa|canis|leo|asia|morris|psoas|teres|pectoralis){GAP}minor|mod[eo]{GAP}mineur|tono{GAP}menor",
    rf"(?:adult|grown(?:{MAYBE}up)?|middle{MAYBE}aged|elderly){GAP}(?:sons?|daughters?)",
    rf"daughter{GAP}?(?:cells?|boards?|cards?|nucle(?:us|i)|isotopes?)|sons?{GAP}of{GAP}(?:a{GAP})?guns?",
    rf"(?:pin-?up|bond|gibson|calendar|cover|weather|land|ring|grid|flapper|chorus|ziegfeld|vegas|career){GAP}girls?|"
    rf"girls['’]{GAP}(?:weekend|trip)|good{GAP}(?:old|ol['’]?){GAP}boys?|"
    rf"(?:whipping|poster|toy){GAP}boys?|big{GAP}boy{GAP}(?:(?:steam{GAP})?locomotive|engine|burger|restaurant)s?"
    rf"|boys{GAP}will{GAP}be"
    rf"{GAP}boys|little{GAP}boy{GAP}(?:atomic{GAP}|nuclear{GAP})?bomb|boys['’]{GAP}clubs?|lads['’]?{GAP}(?:mags?"
    rf"|magazines?)|"
    rf"boy{GAP}howdy|old{GAP}boys?['’]?{GAP}(?:network|club)|son{GAP}et{GAP}lumieres?|oh{GAP}boy(?![a-z])",
    rf"po['’]?{GAP}?boys?(?:{GAP}sandwich(?:es)?)?|game{MAYBE}boy{GAP}(?:console|cartridge|advance|color)s?",
    rf"teeny[\s,-]{{1,3}}(?:tiny|weeny|bit)|tater{GAP}tots?|sea{GAP}urchins?|urchins?{GAP}(?:shell|spine)s?",
    rf"(?:low|mid|upper|high){GAP}(?:to{GAP}(?:mid|upper){GAP})?teens(?={GAP}(?:celsius|fahrenheit|degrees))",
    rf"(?:fountain|elixir){GAP}of{GAP}youth|youth{MAYBE}hostels?|juvenile{GAP}(?:plumage|feathers|humou?r)",
    rf"newborn{GAP}(?:stars?|planets?|galax(?:y|ies))",
    rf"(?:primary|elementary|grade|middle|high){MAYBE}school{GAP}(?:buildings?|bus(?:es)?|teachers?|reunions?)",
    r"enfants?[\s-]terribles?|l?assie(?=[\s-]collies?)|kindergarten[\s-]teachers?",
    *_COMPOUNDS,
    *_OF_THINGS,
    # Age of a thing or an animal, time that goes by, and numbers that are not ages.
    rf"(?:{_SPAN}|{_DAYS})[\s_-]{{0,3}}old{GAP}{BETWEEN}(?:{OLD_ANIMALS}|{FOODS}|{THINGS}){_NO_PERSON}",
    rf"{_SPAN}[\s_-]{{0,3}}(?:{FOODS}|leases?|mortgages?|wars?)",
    # Only where the thing is the subject: not "a person in a car is 12 years old".
    rf"(?:(?<![\s\S])|(?<=[.,;]\s))(?:the|this|my|our|an?){GAP}{BETWEEN}(?:{OLD_ANIMALS}|{FOODS}|{THINGS}){GAP}"
    rf"(?:(?:(?:that|which){GAP})?(?:is|are|was|were){GAP})?{_SPAN}{MAYBE}old",
    rf"(?:{FOODS})[\s,]{{1,3}}aged{GAP}(?:for{GAP})?{_SPAN}(?!{MAYBE}old)",
    rf"aged{GAP}(?:for{GAP})?{_SPAN}{GAP}(?:(?:in{GAP})?(?:{FOODS})|in{GAP}(?:(?:oak|wooden|old|sherry|wine){GAP})?"
    rf"(?:oak|casks?|barrels?|wood|cellars?))",
    rf"(?:ice|stone|bronze|iron|space|golden|dragon|new){GAP}age{GAP}(?:\d|i+v?)",
    rf"(?:hace|desde|depuis|il{GAP}y{GAP}a|pendant|durante|por|per|apres|despues{GAP}de|vor|seit){GAP}"
    rf"(?:hace{GAP})?{FOREIGN_UNDER_18}{GAP}(?:{FOREIGN_YEARS}|jahren)(?!{GAP}alt)",
    rf"ha{GAP}{FOREIGN_UNDER_18}{GAP}anos",
    rf"{FOREIGN_UNDER_18}{GAP}{FOREIGN_YEARS}{GAP}(?:atras|despues|depois|fa|plus{GAP}tard|dopo|de{GAP}experiencia)",
)
