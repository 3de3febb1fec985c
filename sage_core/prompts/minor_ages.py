"""Stated ages of people under 18, school years, birthdays and years of birth, in words and in figures.

They are regular expressions over plain lower-case text (`plain_forms`) in the notation of `listed`, each bounded as in
`minor_words`.
"""

from __future__ import annotations

from .minor_words import listed

_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_TEENS = "ten|eleven|twelve|(?:thir|four|fif|six|seven)teen"
# "twenty-five" is not five.
_NO_TENS = "".join(rf"(?<!{tens}[\s_-])" for tens in (*_TENS.split("|"), r"hundred[\s_-]and"))
_DIGITS = r"(?=\d)(?<!\d)(?<!\d\.)(?:0?\d|1[0-7])(?:\.\d{1,2})?(?!\d)"
_IN_WORDS = rf"(?=[otfsen]){_NO_TENS}(?:{_ONES})|(?=[tefs])(?:{_TEENS})"
UNDER_18 = rf"(?:{_DIGITS}|{_IN_WORDS})"
_UP_TO_18 = rf"(?:{_DIGITS}|(?<!\d)18(?!\d)|{_IN_WORDS}|eighteen)"
# What may follow where a bare 3 to 17 is read as an age: no unit and no noun, which the number would count.
_ALONE = (
    r"(?=[\s_]*(?:$|[,;!?)/]|\.(?!\d)|(?:years?|yrs?|yo|and|or|today|now|again|but|when|next|last|this|with|in|at|on"
    r"|yesterday|tomorrow|soon)\b))"
)
_AGE_ALONE = rf"(?:(?<!\d)(?<!\d\.)(?:[3-9]|1[0-7])(?![\d.]*\d)|three|four|five|six|seven|eight|nine|{_TEENS}){_ALONE}"
_PART = "+(?:and|&)+(?:(?:a+|one+)?half|(?:a|one|three)+quarters?|[13]/[24]|a+bit|(?:a+few|some)+months)"
HALF = f"(?:{_PART})?"
_TEEN_AGE = rf"(?:(?<!\d)(?<!\d\.)1[0-7](?![\d.]*\d)|{_TEENS})"
_SCHOOL_NUMBER = rf"(?:1[0-3]|[1-9]|{_ONES}|ten|eleven|twelve|thirteen)"
_ROMAN = "(?:x(?:ii?)?|i[xv]|vi{0,3}|iii?)"
_PUPILS = (
    "(?:students?|pupils?|learners?|scholars?|class(?:es|rooms?|mates?)?|leavers?|kids?|girls?|boys?|school"
    "|boarders?|homework|lessons?|exams?|assembly|camp|choir|prom|disco|uniforms?|textbook|desk|trip)"
)
_TEAMS = (
    "(?:(?:girls|boys|football|soccer|rugby|hockey|swim|tennis|netball)['’]?+)?"
    "(?:team|squad|side|match|league|cup|final|game|champion|player)s?"
)
_ORDINALS = (
    "1st|2nd|3rd|4th|5th|6th|7th|8th|9th|10th|11th|12th|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth"
    "|tenth|eleventh|twelfth"
)
_BIRTHDAYS = rf"{_ORDINALS}|1[3-7]th|(?:thir|four|fif|six|seven)teenth"
_OF_ABOUT = r"(?:(?:of|is|at|about|around|approximately|between|from|only|just|barely|under|below)[\s:=_-]{0,3}){0,3}"
_YEARS = r"(?:years?|yrs?|y)~(?:olds?|of+age|young)|yrs?(?!~(?:of|in)\b)|y[\s./_-]{0,2}os?(?!-yo)"
_SEX = "(?:fe)?males?"
_GERMAN_TEENS = "elf|zwo(?:e)?lf|(?:drei|vier|fu(?:e)?nf|sech|sieb)zehn"
GERMAN_UNDER_18 = rf"(?:{_DIGITS}|ein|zwei|drei|vier|fu(?:e)?nf|sechs|sieben|acht|neun|zehn|{_GERMAN_TEENS})"
# Ages in figures and words.
AGES = rf"""
    {UNDER_18}(?:\x2b|-?ish)?(?:{HALF}~(?:{_YEARS})|+(?:summers|winters|springs)+old)
    # Not the y of an axis, of coordinates ("x 12 y 30"), of y-shaped or of y'all.
    {_DIGITS}[\s_-]?y(?!-[a-z]|~(?:ax[ei]s|coord|chrom|[=:\d])|['’])
    ages?d?[\s:=_-]{{0,3}}{_OF_ABOUT}{UNDER_18}(?!~(?:hundred|thousand|million))
    (?:\d{{1,3}}|{_ONES}|{_TEENS}|eighteen)~(?:months?|weeks?|days?)~old thirteenagers? 6th~form(?:ers?)?
    both+{_AGE_ALONE}
    # Under an age.
    (?:under|below|(?:younger|less|fewer)+than)+(?:the+)?age+(?:of+)?{_UP_TO_18} younger+than+{_UP_TO_18}
    (?:under|below)~(?:18|eighteen)s?(?:(?!\d|~(?:%|[a-z°$€£]))|{_ALONE})
    (?:the|an?|in)+(?:under[\s_-]?|u-?)(?:[6-9]|1[0-8])+{_TEAMS} u-?[6-9]+{_TEAMS}
    (?:under|below|less+than|fewer+than|up+to|at+most)+{_UP_TO_18}+years?(?!+(?:ago|later))
    (?:less|fewer)+than+(?:18|eighteen){_ALONE} (?:under|below)+{_AGE_ALONE}
    (?:under|below)+(?:the+)?(?:legal+(?:drinking+)?age|age+of+(?:consent|majority))
    under-(?:{_ONES}|{_TEENS}|eighteen)s? under+(?:{_TEENS}|eighteen)s under-(?:\d|1[0-8])s?(?!\d)
    under[\s_]?(?:\d|1[0-8])s u-?1[0-8]s? no+(?:older|more)+than+{_AGE_ALONE} not?+older+than+{UNDER_18}
    (?:not|isn['’]?t|wasn['’]?t|aren['’]?t)+(?:(?:yet|even|quite|really|turned|over|above|older+than)+){{0,2}}(?:1[3-8]
    |(?:thir|four|fif|six|seven|eigh)teen){_ALONE} (?:not|isn['’]?t|wasn['’]?t|aren['’]?t)+{_UP_TO_18}+yet
    won['’]?t+(?:be|turn)+(?:1[1-8]|{_TEENS}|eighteen){_ALONE} noch+nicht+18
    (?:has|have|had)(?:n['’]?t|+not|+yet+to|+never)+(?:yet+)?(?:turn(?:ed)?|reach(?:ed)?)+{_UP_TO_18}
    (?:shy|short)+of+(?:{_UP_TO_18}|adulthood) before+adulthood at+(?:thir|four|fif|six|seven)teen{_ALONE}
    between+(?:[3-9]|1[0-7])+and+(?:[4-9]|1[0-7]){_ALONE} age+(?:range|group|bracket)[\s:=-]{{0,3}}{UNDER_18}
    (?:almost|nearly|about+to+(?:be|turn))+(?:18{_ALONE}|eighteen{_ALONE}|{_AGE_ALONE})
    before+(?:(?:her|his|their|the)+)?(?:(?:turning|being)+)?(?:18|eighteen)(?:th)?(?=\W|$)
    # A number after a verb or a word that makes it an age.
    turn(?:s|ed|ing)?+(?:just+|only+)?{_AGE_ALONE} (?:only|just|barely|merely|still)+{_AGE_ALONE}
    (?:she|he|they|who|i|you|we|both)(?:['’](?:s|re|m)|+(?:is|are|am|was|were|be))+(?:(?:both|only|just|about|around
    |barely|still|like|now|all)+){{0,2}}{_AGE_ALONE}
    (?:looks?|looked|looking|appears?|appearing|appeared|seems?)+(?:(?:to|be|like|about|around|only|just|she|he|they|is
    |are|was|were|barely)+){{0,4}}{_AGE_ALONE}
    # "13, female", "female, 13", "12f" (not f/8, an aperture), "Anna, 13, ...".
    (?<![\d/.])(?:[3-9]|1[0-7])(?:~[,/;|]~{_SEX}|~[,/]~[fm])(?![a-z]) [fm],\s?(?:[89]|1[0-7])(?![\d.])
    (?<![\d/.])(?:[89]|1[0-7])(?:[\s_]?f)(?![a-z]|~[./\d])
    (?:{_SEX}+1[0-7]|(?:{_SEX}|woman|man|model|student|person)~[,/(;]~(?:[3-9]|1[0-7]))(?=\s*(?:$|[,;.)]))
    (?<![a-z-])[a-z]{{2,20}},\s?(?:(?:[3-9]|1[0-7])(?=,|+(?:and|und|et|y|e)+\d|\s*$)|(?:{_ONES}|{_TEENS})(?=\s*$))
    [a-z]{{2,20}},?+{GERMAN_UNDER_18}+jahre(?=\s*(?:$|[,;.)]))
    # School years and grades.
    (?:{_ORDINALS})~(?:graders?|grade~(?:students?|pupils?|class(?:es|rooms?|mates?)?))
    # From the third on, whatever is no subject, thing or grown-up: "an eighth-grade dance".
    (?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|4th|5th|6th|7th|8th|9th|10th|11th
    |12th)+grade+(?!math|teachers?\b|textbook|read|level|of\b|timber|lumber|wool|steel|burn|material|quality|paper|tear
    |sprain|eggs)[a-z]{{3}}[a-z]{{0,20}} in+(?:the+)?(?:{_ORDINALS})+grade (?:{_ORDINALS})~grade{_ALONE}
    in+(?:the+)?(?:[4-9]|1[0-2])th(?=\s*(?:$|[,;.!?)])) (?:{_ORDINALS})~(?:form(?:ers?)?|standard|class)+{_PUPILS}
    (?:{_ORDINALS})~formers?
    # "grade 5 titanium" and "year 2 of the war" are among the harmless phrases.
    (?:grade|year)~(?:(?:1[0-3]|[1-9])(?![\d.])|{_ONES}|ten|eleven|twelve|thirteen)+(?!y(?:ea)?rs?\b|olds?\b|of\b
    |in\b)[a-z]{{3}}[a-z]{{0,20}} (?:year|grade)+(?:{_ONES}|ten|eleven|twelve|thirteen)s
    (?:year|grade|form)+(?:\d{{1,2}}|{_ONES}|ten|eleven)+of+(?:school|secondary|primary|elementary|high|middle|her|his
    |their)
    (?:at|in|from|to|attends?|attending)+(?:(?:a|an|the|her|his|their)+)?(?:secondary|prep|preparatory|boarding|grammar
    |convent|comprehensive|infants?|junior)~school secondary~schools?
    [a-z]{{2,20}}+high+(?:swim|football|basketball|cheer(?:leader|leading)?s?|track|soccer|baseball|volleyball
    |wrestling|chess|debate|glee|marching|drama|prom|hockey|varsity|tennis|student|yearbook|freshman|sophomore|junior
    |senior)s?
    (?:foundation|prep|reception|nursery|kindy|transition)+(?:year+)?(?:class(?:room)?|pupils?|kids|learners?)
    (?:grade|year|class|form|standard|std\.?|secondary|primary|p|s|yr
    |y)~{_SCHOOL_NUMBER}s?(?:['’]s?)?+(?:(?:\w{{3,10}})+)?{_PUPILS} (?:class|grade|standard|std|form)+{_ROMAN}+{_PUPILS}
    years?~(?:1[0-3]|[1-9])s y(?:[7-9]|1[0-3])s
    (?:years?|yr)~(?:(?:1[0-3]|[1-9])(?!\d)|{_ONES}|ten|eleven)(?!~y(?:ea)?rs?){_ALONE}
    in+(?:grade|form|standard|std)+{_SCHOOL_NUMBER}{_ALONE}
    (?:freshm[ae]n|sophomores?|juniors?|seniors?|students?|pupils?|cheerleaders?|quarterbacks?|captains?|classmates?
    |valedictorians?|teams?|squads?|band)+(?:at|of|from|in)+(?:[a-z.'’]{{1,20}}+){{1,3}}high(?=\s*(?:$|[,;.!?)]))
    (?:secondary|comprehensive|prep|preparatory|junior|infants?|grammar|boarding|sunday|convent|catholic|day
    |state)~school+{_PUPILS}
    (?:teacher|tutor|governess|school~(?:master|mistress|teacher)|class|matric)+(?:(?:and|with|of)+)?(?:(?:a|her|his
    |their|the)+)?pupils?
    pupils?+(?!dilat|contract|constrict|narrow|widen|shrink|glow|shin)[a-z]{{3,9}}ing+(?:(?:up|out|at|to|in|on
    |for)+)?(?:(?:a|an|the|her|his|their)+)?[a-z]{{3}}[a-z]{{0,14}}
    pupils?+(?:in|at|of|from|with|wearing|on|raising|sitting)+(?:(?:a|an|the|her|his|their|our)+)?(?:class(?:room)?
    |school|lessons?|uniforms?|desks?|playground|trip|grade|year|form)s?
    # Ages with parts, and before a birthday.
    {_TEEN_AGE}{_PART}{_ALONE} (?:[3-9]|{_ONES})+and+three+quarters?{_ALONE}
    {_TEEN_AGE}+going+on+(?:\d|[a-z]{{3,5}}teen|(?:twent|thirt|fort)y) going+on+{_AGE_ALONE}
    {_TEEN_AGE}+(?:winters|summers|springs){_ALONE}
    in+(?:her|his|their|my)+{_NO_TENS}(?:{_BIRTHDAYS}|18th|eighteenth)+year(?!+(?:of+(?!life)|as|at|in)|s)
    (?:pushing|(?:going|soon|about)+to+be|will+be|hits?|hitting|reach(?:es|ing)|nearing|approaching|rising
    |coming+up+(?:to|on))+(?:1[1-7](?!\d)|{_TEENS}){_ALONE}
    (?:short|shy|ahead|this+side)+of+(?:(?:her|his|their|my|the)+)?(?:18|eighteen)(?:th)?(?!\d)
    (?:hasn['’]?t|haven['’]?t|not|never|yet+to)+(?:yet+)?(?:had|have|reached|reach|celebrated|celebrate|seen
    |see)+(?:her|his|their)+(?:18th|eighteenth)
    (?:days?|weeks?|months?|years?)+(?:until|till|to)+(?:her|his|their)+(?:18th|eighteenth)
    {_TEEN_AGE}+years+and+(?:\d{{1,3}}|[a-z]{{1,10}})+(?:months?|weeks?|days?) (?:half+)?a+dozen+years+(?:old|of+age)
    (?:pre|sub)-(?:18|eighteen) sweet+(?:thirteen|fourteen|fifteen|seventeen|1[3-57]) single-digit+ages?
    (?:below|under|not+of)+(?:the+)?(?:legal+)?(?:drinking|driving|voting|working|marr(?:iage|ying)|school
    |school-leaving|consent|legal)+age ages?\s?[<≤]=?\s?{_UP_TO_18}
    aged?+(?:x(?:i{{1,3}}|iv|vi{{0,2}})|vi{{1,3}}|i[xv])(?![a-z])
    [a-z]{{2,20}},\s?(?:[3-9]|1[0-7])+(?:years?|yrs)(?=\s*(?:$|[,;.)]))
    {_DIGITS}~(?:jaar(?:+oud)?|jarige?|ar+gammal|arige?)
    # Ages of relatives and of people of a role.
    (?:niece|nephew|cousin|sister|brother|sibling|twin|triplet|youngest|eldest|oldest|pupil|student|grandchild|patient
    |victim|zwilling)s?(?:+(?:is|are|was|were|turned|of)|,|:)?+(?:only+|just+|all+|both+)?{_AGE_ALONE}
    (?:person|man|woman|model|beauty|page|ward|maid|maiden|virgin|student|pupil|singer|dancer|gymnast|heir|heiress
    |prince|princess|bride|apprentice|someone|figure|actress|actor|athlete|swimmer|waif|slave|servant|skater|prodigy
    |recruit|soldier|cadet|squire|novice|nun|monk|scamp|rascal|scallywag|minx|imp|creature|worker|jockey|player|dancer
    |sailor|refugee|queen|king|thief|beggar|driver|learner|rider|chappie|tiddler|pipsqueak|gal|manchild|lady|fellow
    |thing|duchess|countess|shepherd(?:ess)?|waitress|seamstress|goddess|priestess|pianist|violinist|cellist|guitarist
    |artist|cyclist|musician|magician|ballerina|sibling|duckling|cheerleader)(?:e?s)?+of+(?:only+|just+|about+|some+
    |barely+)?(?:[89]|1[0-7]|{_ONES}|{_TEENS})(?:+years)?(?=\s*(?:$|[,;.)]|and\b|in\b|with\b|at\b|on\b))
    # Birthdays and years of birth.
    {_NO_TENS}(?:{_BIRTHDAYS})+b(?:irth|-)?days?
    born+(?:(?:only|just|about|around|some)+)?{UNDER_18}+(?:years|months|weeks|days)+ago
    # Fixed, so that the same prompts are kept in any year: with the years it grows stricter, never laxer.
    (?:born|birth(?:date|day|[\s-]?year)?|b\.|dob|d\.o\.b\.?)[^\da-z]{{0,4}}(?:(?:in|on
    |of)[^\da-z]{{1,3}})?(?:\d{{1,2}}[./-]){{0,2}}(?:2009|20[1-9]\d)
"""
_FOREIGN_NUMBERS = listed(
    """
    dos deux due dois tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete
    trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept tre quattro cinque sei
    sette otto dieci undici dodici tredici quattordici quindici sedici diciassette quatro sete oito nove dez dezesseis
    dezasseis dezessete dezassete
    """
)
# "treinta y cinco", "trinta e cinco" and "vingt-cinq" are adults'.
_NO_FOREIGN_TENS = r"(?<!\sy\s)(?<!\se\s)" + "".join(
    rf"(?<!{tens}[\s-])" for tens in ("vingt", "trente", "quarante", "cinquante", "soixante")
)
FOREIGN_UNDER_18 = rf"(?:{_DIGITS}|(?=[tcqsondzvh]){_NO_FOREIGN_TENS}(?:{_FOREIGN_NUMBERS}))"
FOREIGN_YEARS = "(?:a[nñ]os?|ans?|anni)"
FOREIGN_AGES = rf"""
    {FOREIGN_UNDER_18}~{FOREIGN_YEARS} (?:moins+de|menos+de|menor(?:es)?+de|sotto+i|meno+di|unter)+18
    (?:tiene|tenia|cumple|cumplio|cumplira|cumpliendo|compie|compira|de)+(?:solo+)?(?:quince|catorce|trece|once
    |dieciseis|diecisiete|quindici|quattordici|tredici|sedici|diciassette|quinze|quatorze|treze|dezesseis|dezessete
    |doce|douze|treize|seize){_ALONE}
    (?:ist|war|wird|werden|sind|mit)+(?:erst+|gerade+|noch+|nur+)?(?:{_GERMAN_TEENS}|1[1-7](?!\d)){_ALONE}
    (?:[1-6][oºªa°.]|(?:primer[oa]?|segund[oa]|tercer[oa]?|cuart[oa]|quint[oa]
    |sext[oa]))+(?:curso+)?(?:de+)(?:la+)?(?:primaria|secundaria|eso|bachillerato|infantil)
    (?:estudantes?|alun[oa]s?|turma|no|do)+(?:do+)?[1-9][oº°]?+ano(?!s)
    (?:[1-9][oº°]|primeiro|segundo|terceiro|quarto|quinto|sexto|setimo|oitavo|nono)+ano+(?:escolar|do+ensino)
    (?:eleves?|classes?|en)+(?:de+|en+)?(?:[3-6]e(?:me)?|sixieme|cinquieme|quatrieme|troisieme|terminale|c[pm][12]?
    |ce[12])(?![a-z]) (?:[1-9]|1[0-3])\.~klasse (?:ier|[1-5][aª])+(?:elementare|media|liceo)
    {GERMAN_UNDER_18}~ja(?:e)?hr(?:ige?[rsnm]?|e+(?:alt(?:e[rsnm]?)?|jung)) (?:mit|von)+{GERMAN_UNDER_18}+jahren
"""
