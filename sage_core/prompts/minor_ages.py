"""Stated ages of people under 18, school years, birthdays and years of birth, in words and in figures.

They are regular expressions over plain lower-case text (`plain_forms`), each bounded as in `minor_words`.
"""

from __future__ import annotations

from .minor_words import GAP, MAYBE, listed

_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_TEENS = "ten|eleven|twelve|(?:thir|four|fif|six|seven)teen"
# "twenty-five" is not five.
_NO_TENS = "".join(rf"(?<!{tens}[\s_-])" for tens in (*_TENS.split("|"), r"hundred[\s_-]and"))
_DIGITS = r"(?=\d)(?<!\d)(?<!\d\.)(?:0?\d|1[0-7])(?:\.\d{1,2})?(?!\d)"
UNDER_18 = rf"(?:{_DIGITS}|(?=[otfsen]){_NO_TENS}(?:{_ONES})|(?=[tefs])(?:{_TEENS}))"
_UP_TO_18 = rf"(?:{_DIGITS}|(?<!\d)18(?!\d)|(?=[otfsen]){_NO_TENS}(?:{_ONES})|(?=[tefs])(?:{_TEENS})|eighteen)"
# What may follow where a bare 3 to 17 is read as an age: no unit and no noun, which the number would count.
_ALONE = (
    r"(?=[\s_]*(?:$|[,;!?)/]|\.(?!\d)|(?:years?|yrs?|yo|and|or|today|now|again|but|when|next|last|this|with|years|in"
    r"|at|on|yesterday|tomorrow|soon)\b))"
)
_AGE_ALONE = rf"(?:(?<!\d)(?<!\d\.)(?:[3-9]|1[0-7])(?![\d.]*\d)|three|four|five|six|seven|eight|nine|{_TEENS}){_ALONE}"
_PART = (
    rf"{GAP}(?:and|&){GAP}(?:(?:a{GAP}|one{GAP})?half|(?:a|one|three){GAP}quarters?|[13]/[24]|a{GAP}bit"
    rf"|(?:a{GAP}few|some){GAP}months)"
)
HALF = rf"(?:{_PART})?"
_TEEN_AGE = rf"(?:(?<!\d)(?<!\d\.)1[0-7](?![\d.]*\d)|{_TEENS})"
_SCHOOL_NUMBER = rf"(?:1[0-3]|[1-9]|{_ONES}|ten|eleven|twelve|thirteen)"
_ROMAN = "(?:x(?:ii?)?|i[xv]|vi{0,3}|iii?)"
_PUPILS = (
    "(?:students?|pupils?|learners?|scholars?|class(?:es|rooms?|mates?)?|leavers?|kids?|girls?|boys?|school"
    "|boarders?|homework|lessons?"
    "|exams?|assembly|camp|choir|prom|disco|uniforms?|textbook|desk|trip)"
)
_TEAMS = (
    rf"(?:(?:girls|boys|football|soccer|rugby|hockey|swim|tennis|netball)['’]?{GAP})?"
    "(?:team|squad|side|match|league|cup|final|game|champion|player)s?"
)
_ORDINALS = (
    r"1st|2nd|3rd|(?:[4-9]|1[0-2])th|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh"
    r"|twelfth"
)
_BIRTHDAYS = rf"{_ORDINALS}|1[3-7]th|(?:thir|four|fif|six|seven)teenth"
_OF_ABOUT = r"(?:(?:of|is|at|about|around|approximately|between|from|only|just|barely|under|below)[\s:=_-]{0,3}){0,3}"
_YEARS = rf"(?:years?|yrs?|y){MAYBE}(?:olds?|of{GAP}age|young)|yrs?(?!{MAYBE}(?:of|in)\b)|y[\s./_-]{{0,2}}os?(?!-yo)"
_SEX = "(?:fe)?males?"
_GERMAN = """
    ein zwei drei vier fu(?:e)?nf sechs sieben acht neun zehn elf zwo(?:e)?lf dreizehn vierzehn fu(?:e)?nfzehn
    sechzehn siebzehn
    """
GERMAN_TEENS = "elf|zwo(?:e)?lf|(?:drei|vier|fu(?:e)?nf|sech|sieb)zehn|1[1-7](?!\\d)"
GERMAN_UNDER_18 = rf"(?:{_DIGITS}|{listed(_GERMAN)})"
# Ages in figures and words.
AGES = (
    rf"{UNDER_18}(?:\+|-?ish)?(?:{HALF}{MAYBE}(?:{_YEARS})|{GAP}(?:summers|winters|springs){GAP}old)",
    # Not the y of an axis, of coordinates ("x 12 y 30"), of y-shaped or of y'all.
    rf"{_DIGITS}[\s_-]?y(?!-[a-z]|{MAYBE}(?:ax[ei]s|coord|chrom|[=:\d])|['’])",
    rf"ages?d?[\s:=_-]{{0,3}}{_OF_ABOUT}{UNDER_18}(?!{MAYBE}(?:hundred|thousand|million))",
    rf"(?:\d{{1,3}}|{_ONES}|{_TEENS}|eighteen){MAYBE}(?:months?|weeks?|days?){MAYBE}old",
    rf"thirteenagers?|6th{MAYBE}form(?:ers?)?|both{GAP}{_AGE_ALONE}",
    # Under an age.
    rf"(?:under|below|(?:younger|less|fewer){GAP}than){GAP}(?:the{GAP})?age{GAP}(?:of{GAP})?{_UP_TO_18}",
    rf"younger{GAP}than{GAP}{_UP_TO_18}|(?:under|below){MAYBE}(?:18|eighteen)s?(?:(?!\d|{MAYBE}(?:%|[a-z°$€£]))|{_ALONE})",
    rf"(?:the|an?|in){GAP}(?:under[\s_-]?|u-?)(?:[6-9]|1[0-8]){GAP}{_TEAMS}|u-?[6-9]{GAP}{_TEAMS}",
    rf"(?:under|below|less{GAP}than|fewer{GAP}than|up{GAP}to|at{GAP}most){GAP}{_UP_TO_18}{GAP}years?"
    rf"(?!{GAP}(?:ago|later))",
    rf"(?:less|fewer){GAP}than{GAP}(?:18|eighteen){_ALONE}|(?:under|below){GAP}{_AGE_ALONE}",
    rf"(?:under|below){GAP}(?:the{GAP})?(?:legal{GAP}(?:drinking{GAP})?age|age{GAP}of{GAP}(?:consent|majority))",
    rf"under-(?:{_ONES}|{_TEENS}|eighteen)s?|under{GAP}(?:{_TEENS}|eighteen)s",
    r"under-(?:\d|1[0-8])s?(?!\d)|under[\s_]?(?:\d|1[0-8])s|u-?1[0-8]s?",
    rf"no{GAP}(?:older|more){GAP}than{GAP}{_AGE_ALONE}|not?{GAP}older{GAP}than{GAP}{UNDER_18}",
    rf"(?:not|isn['’]?t|wasn['’]?t|aren['’]?t){GAP}(?:(?:yet|even|quite|really|turned|over|above"
    rf"|older{GAP}than){GAP})"
    rf"{{0,2}}(?:1[3-8]|(?:thir|four|fif|six|seven|eigh)teen){_ALONE}",
    rf"(?:not|isn['’]?t|wasn['’]?t|aren['’]?t){GAP}{_UP_TO_18}{GAP}yet|won['’]?t{GAP}(?:be|turn){GAP}(?:1[1-8]|{_TEENS}|eighteen){_ALONE}|noch{GAP}nicht{GAP}18",
    rf"(?:has|have|had)(?:n['’]?t|{GAP}not|{GAP}yet{GAP}to|{GAP}never){GAP}(?:yet{GAP})?"
    rf"(?:turn(?:ed)?|reach(?:ed)?){GAP}{_UP_TO_18}",
    rf"(?:shy|short){GAP}of{GAP}(?:{_UP_TO_18}|adulthood)|before{GAP}adulthood|at{GAP}(?:thir|four|fif|six|seven)teen{_ALONE}",
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
    rf"(?<![\d/.])(?:[3-9]|1[0-7])(?:{MAYBE}[,/;|]{MAYBE}{_SEX}|{MAYBE}[,/]{MAYBE}[fm])(?![a-z])",
    r"[fm], ?(?:[89]|1[0-7])(?![\d.])",
    rf"(?<![\d/.])(?:[89]|1[0-7])(?:[\s_]?f)(?![a-z]|{MAYBE}[./\d])",
    rf"(?:{_SEX}{GAP}1[0-7]|(?:{_SEX}|woman|man|model|student|person){MAYBE}[,/(;]{MAYBE}(?:[3-9]|1[0-7]))"
    r"(?=\s*(?:$|[,;.)]))",
    rf"(?<![a-z-])[a-z]{{2,20}}, ?(?:(?:[3-9]|1[0-7])(?=,|{GAP}(?:and|und|et|y|e){GAP}\d|\s*$)|(?:{_ONES}|{_TEENS})"
    rf"(?=\s*$))|[a-z]{{2,20}},?{GAP}{GERMAN_UNDER_18}{GAP}jahre(?=\s*(?:$|[,;.)]))",
    # School years and grades.
    rf"(?:{_ORDINALS}){MAYBE}(?:graders?|grade{MAYBE}(?:students?|pupils?|class(?:es|rooms?|mates?)?))",
    # From the third on, whatever is no subject, thing or grown-up: "an eighth-grade dance".
    rf"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|(?:[4-9]|1[0-2])th){GAP}grade{GAP}(?!math"
    r"|teachers?\b|textbook|read|level|of\b|timber|lumber|wool|steel|burn|material|quality|paper|tear|sprain|eggs)[a-z]{3}"
    r"[a-z]{0,20}",
    rf"in{GAP}(?:the{GAP})?(?:{_ORDINALS}){GAP}grade|(?:{_ORDINALS}){MAYBE}grade{_ALONE}",
    rf"in{GAP}(?:the{GAP})?(?:[4-9]|1[0-2])th(?=\s*(?:$|[,;.!?)]))|(?:{_ORDINALS}){MAYBE}(?:form(?:ers?)?|standard"
    rf"|class)"
    rf"{GAP}{_PUPILS}|(?:{_ORDINALS}){MAYBE}formers?",
    # "grade 5 titanium" and "year 2 of the war" are among the harmless phrases.
    rf"(?:grade|year){MAYBE}(?:(?:1[0-3]|[1-9])(?![\d.])|{_ONES}|ten|eleven|twelve|thirteen){GAP}(?!y(?:ea)?rs?\b|olds?\b|of\b"
    rf"|in\b)[a-z]{{3}}"
    rf"[a-z]{{0,20}}|(?:year|grade){GAP}(?:{_ONES}|ten|eleven|twelve|thirteen)s",
    rf"(?:year|grade|form){GAP}(?:\d{{1,2}}|{_ONES}|ten|eleven){GAP}of{GAP}(?:school|secondary|primary|elementary"
    rf"|high|middle|her|his|their)",
    rf"(?:at|in|from|to|attends?|attending){GAP}(?:(?:a|an|the|her|his|their){GAP})?(?:secondary|prep|preparatory"
    rf"|boarding|grammar"
    rf"|convent|comprehensive|infants?|junior){MAYBE}school|secondary{MAYBE}schools?",
    rf"[a-z]{{2,20}}{GAP}high{GAP}(?:swim|football|basketball|cheer(?:leader|leading)?s?|track|soccer|baseball"
    rf"|volleyball|wrestling"
    rf"|chess|debate|glee|marching|drama|prom|hockey|varsity|tennis|student|yearbook|freshman|sophomore|junior"
    rf"|senior)s?",
    rf"(?:foundation|prep|reception|nursery|kindy|transition){GAP}(?:year{GAP})?(?:class(?:room)?|pupils?|kids"
    rf"|learners?)",
    rf"(?:grade|year|class|form|standard|std\.?|secondary|primary|p|s|yr|y){MAYBE}{_SCHOOL_NUMBER}s?(?:['’]s?)?{GAP}"
    rf"(?:(?:\w{{3,10}}){GAP})?{_PUPILS}",
    rf"(?:class|grade|standard|std|form){GAP}{_ROMAN}{GAP}{_PUPILS}|years?{MAYBE}(?:1[0-3]|[1-9])s|y(?:[7-9]|1[0-3])s",
    rf"(?:years?|yr){MAYBE}(?:(?:1[0-3]|[1-9])(?!\d)|{_ONES}|ten|eleven)(?!{MAYBE}y(?:ea)?rs?){_ALONE}",
    rf"in{GAP}(?:grade|form|standard|std){GAP}{_SCHOOL_NUMBER}{_ALONE}|grade{GAP}{_SCHOOL_NUMBER}{GAP}teacher['’]s",
    rf"(?:freshm[ae]n|sophomores?|juniors?|seniors?|students?|pupils?|cheerleaders?|quarterbacks?|captains?"
    rf"|classmates?"
    rf"|valedictorians?|teams?|squads?|band){GAP}(?:at|of|from|in){GAP}(?:[a-z.'’]{{1,20}}{GAP}){{1,3}}high"
    r"(?=\s*(?:$|[,;.!?)]))",
    rf"(?:secondary|comprehensive|prep|preparatory|junior|infants?|grammar|boarding|sunday|convent|catholic|day"
    rf"|state)"
    rf"{MAYBE}school{GAP}{_PUPILS}",
    rf"(?:teacher|tutor|governess|school{MAYBE}(?:master|mistress|teacher)|class|matric){GAP}(?:(?:and|with|of){GAP})?"
    rf"(?:(?:a|her|his|their|the){GAP})?pupils?|pupils?{GAP}(?!dilat|contract|constrict|narrow|widen|shrink|glow|shin)[a-z]{{3,9}}"
    rf"ing{GAP}(?:(?:up|out|at|to|in|on|for){GAP})?(?:(?:a|an|the|her|his|their){GAP})?[a-z]{{3}}[a-z]{{0,14}}",
    rf"pupils?{GAP}(?:in|at|of|from|with|wearing|on|raising|sitting){GAP}(?:(?:a|an|the|her|his|their|our){GAP})?"
    rf"(?:class(?:room)?|school|lessons?|uniforms?|desks?|playground|trip|grade|year|form)s?",
    # Ages with parts, and before a birthday.
    rf"{_TEEN_AGE}{_PART}{_ALONE}|(?:[3-9]|{_ONES}){GAP}and{GAP}three{GAP}quarters?{_ALONE}",
    rf"{_TEEN_AGE}{GAP}going{GAP}on{GAP}(?:\d|[a-z]{{3,5}}teen|(?:twent|thirt|fort)y)|going{GAP}on{GAP}{_AGE_ALONE}"
    rf"|{_TEEN_AGE}{GAP}(?:winters|summers|springs){_ALONE}",
    rf"in{GAP}(?:her|his|their|my){GAP}{_NO_TENS}(?:{_BIRTHDAYS}|18th|eighteenth){GAP}year(?!{GAP}(?:of{GAP}(?!life)|as|at"
    rf"|in)|s)",
    rf"(?:pushing|(?:going|soon|about){GAP}to{GAP}be|will{GAP}be|hits?|hitting|reach(?:es|ing)|nearing|approaching|rising"
    rf"|coming{GAP}up{GAP}(?:to|on)){GAP}(?:"
    rf"1[1-7](?!\d)|{_TEENS}){_ALONE}",
    rf"(?:short|shy|ahead|this{GAP}side){GAP}of{GAP}(?:(?:her|his|their|my|the){GAP})?(?:18|eighteen)(?:th)?(?!\d)",
    rf"(?:hasn['’]?t|haven['’]?t|not|never|yet{GAP}to)"
    rf"{GAP}(?:yet{GAP})?(?:had|have|reached|reach|celebrated|celebrate|seen|see){GAP}(?:her|his|their){GAP}(?:18th"
    rf"|eighteenth)",
    rf"(?:days?|weeks?|months?|years?){GAP}(?:until|till|to){GAP}(?:her|his|their){GAP}(?:18th|eighteenth)",
    rf"{_TEEN_AGE}{GAP}years{GAP}and{GAP}(?:\d{{1,3}}|[a-z]{{1,10}}){GAP}(?:months?|weeks?|days?)",
    rf"(?:half{GAP})?a{GAP}dozen{GAP}years{GAP}(?:old|of{GAP}age)",
    rf"(?:pre|sub)-(?:18|eighteen)|sweet{GAP}(?:thirteen|fourteen|fifteen|seventeen|1[3-57])|single-digit{GAP}ages?",
    rf"(?:below|under|not{GAP}of){GAP}(?:the{GAP})?(?:legal{GAP})?(?:drinking|driving|voting|working|marr(?:iage"
    rf"|ying)"
    rf"|school|school-leaving|consent|legal){GAP}age",
    rf"ages?\s?[<≤]=?\s?{_UP_TO_18}|aged?{GAP}(?:x(?:i{{1,3}}|iv|vi{{0,2}})|vi{{1,3}}|i[xv])(?![a-z])",
    rf"[a-z]{{2,20}}, ?(?:[3-9]|1[0-7]){GAP}(?:years?|yrs)(?=\s*(?:$|[,;.)]))",
    rf"{_DIGITS}{MAYBE}(?:jaar(?:{GAP}oud)?|jarige?|ar{GAP}gammal|arige?)",
    # Ages of relatives and of people of a role.
    rf"(?:niece|nephew|cousin|sister|brother|sibling|twin|triplet|youngest|eldest|oldest|pupil|student|grandchild|patient|victim|zwilling)s?(?:{GAP}(?:is"
    rf"|are|was"
    rf"|were|turned|of)|,|:)?{GAP}(?:only{GAP}|just{GAP}|all{GAP}|both{GAP})?{_AGE_ALONE}",
    rf"(?:person|man|woman|model|beauty|page|ward|maid|maiden|virgin|student|pupil|singer|dancer|gymnast|heir|heiress|prince"
    rf"|princess"
    rf"|bride|apprentice|someone|figure|actress|actor|athlete|swimmer|waif|slave|servant|skater|prodigy|recruit|soldier|cadet|squire"
    rf"|novice|nun|monk|scamp|rascal|scallywag|minx|imp|creature|worker|jockey|player|dancer|sailor|refugee|queen|king"
    rf"|thief|beggar|driver|learner|rider|chappie|tiddler|pipsqueak|gal|manchild|lady|fellow|thing"
    rf"|duchess|countess|shepherd(?:ess)?|waitress|seamstress|goddess|priestess|pianist|violinist|cellist|guitarist|artist"
    rf"|cyclist|musician|magician|ballerina|sibling|duckling|cheerleader)(?:e?s)?"
    rf"{GAP}of{GAP}(?:only{GAP}|just{GAP}|about{GAP}|some{GAP}|barely{GAP})?(?:[89]|1[0-7]|{_ONES}|{_TEENS})"
    rf"(?:{GAP}years)?(?=\s*(?:$|[,;.)]|and\b|in\b|with\b|at\b|on\b))",
    # Birthdays and years of birth.
    rf"{_NO_TENS}(?:{_BIRTHDAYS}){GAP}b(?:irth|-)?days?",
    rf"born{GAP}(?:(?:only|just|about|around|some){GAP})?{UNDER_18}{GAP}(?:years|months|weeks|days){GAP}ago",
    # Fixed, so that the same prompts are kept in any year: with the years it grows stricter, never laxer.
    r"(?:born|birth(?:date|day|[\s-]?year)?|b\.|dob|d\.o\.b\.?)[^\da-z]{0,4}(?:(?:in|on|of)[^\da-z]{1,3})?"
    r"(?:\d{1,2}[./-]){0,2}(?:2009|20[1-9]\d)",
)
_FOREIGN_NUMBERS = listed(
    r"""
    dos deux due dois tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete
    trois quatre
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
FOREIGN_UNDER_18 = rf"(?:{_DIGITS}|(?=[tcqsondzvh]){_NO_FOREIGN_TENS}(?:{_FOREIGN_NUMBERS}))"
FOREIGN_YEARS = "(?:a[nñ]os?|ans?|anni)"
FOREIGN_AGES = (
    rf"{FOREIGN_UNDER_18}{MAYBE}{FOREIGN_YEARS}",
    rf"(?:moins{GAP}de|menos{GAP}de|menor(?:es)?{GAP}de|sotto{GAP}i|meno{GAP}di|unter){GAP}18",
    rf"(?:tiene|tenia|cumple|cumplio|cumplira|cumpliendo|compie|compira|de){GAP}(?:solo{GAP})?(?:quince|catorce"
    rf"|trece|once"
    rf"|dieciseis|diecisiete|quindici|quattordici|tredici|sedici|diciassette|quinze|quatorze|treze|dezesseis"
    rf"|dezessete|doce"
    rf"|douze|treize|seize){_ALONE}",
    rf"(?:ist|war|wird|werden|sind|mit){GAP}(?:erst{GAP}|gerade{GAP}|noch{GAP}|nur{GAP})?(?:{GERMAN_TEENS}){_ALONE}",
    rf"(?:[1-6][oºªa°.]|(?:primer[oa]?|segund[oa]|tercer[oa]?|cuart[oa]|quint[oa]"
    rf"|sext[oa])){GAP}(?:curso{GAP})?(?:de{GAP})"
    rf"(?:la{GAP})?(?:primaria|secundaria|eso|bachillerato|infantil)",
    rf"(?:estudantes?|alun[oa]s?|turma|no|do){GAP}(?:do{GAP})?[1-9][oº°]?{GAP}ano(?!s)|(?:[1-9][oº°]|primeiro"
    rf"|segundo|terceiro|quarto|quinto|sexto|setimo|oitavo|nono){GAP}ano{GAP}(?:escolar|do{GAP}ensino)",
    rf"(?:eleves?|classes?|en){GAP}(?:de{GAP}|en{GAP})?(?:[3-6]e(?:me)?|sixieme|cinquieme|quatrieme|troisieme"
    rf"|terminale|c[pm][12]?"
    rf"|ce[12])(?![a-z])|(?:[1-9]|1[0-3])\.{MAYBE}klasse|(?:ier|[1-5][aª]){GAP}(?:elementare|media|liceo)",
    rf"{GERMAN_UNDER_18}{MAYBE}ja(?:e)?hr(?:ige?[rsnm]?|e{GAP}(?:alt(?:e[rsnm]?)?|jung))|(?:mit"
    rf"|von){GAP}{GERMAN_UNDER_18}{GAP}jahren",
)
