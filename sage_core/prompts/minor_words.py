"""Words that stand for people under 18, and words that make a picture of such people unsafe.

They are regular expressions over plain lower-case text (`plain_forms`). Each repetition is bounded or runs over one
class of characters, so that a search takes time linear in the text. Ages are in `minor_ages`, and phrases that hold
such words or ages but mean something else in `minor_phrases`.
"""

from __future__ import annotations

import re

from .plain_text import plain_characters

_GAP = r"[\s_-]{1,3}"
_MAYBE = r"[\s_-]{0,3}"


def listed(table: str, gap: str = _GAP) -> str:
    """The alternatives of a table, which blanks part; none has a bar outside of brackets.

    A gap in one is written `+`, and one that may be missing `~`. A line may begin with a bar, to go on with the one
    before, or be a comment. Alternatives that begin with the same letter stand behind it together, so that a search
    passes over most of a long table with a look at each first letter; the order of the others stays.
    """
    behind: dict[str, list[str]] = {"": []}
    for each in re.sub(r"(?m)^ *# .*$|\s+(?=\|)", "", table).split():
        each = each.replace("+", gap).replace("~", _MAYBE)
        group = re.fullmatch(r"\(\?:([^()]*)\)([^?*{].*)", each)
        for one in [word + group[2] for word in group[1].split("|")] if group else [each]:
            plain = one[0].isalnum() and not one[1:].startswith(("?", "*", "{"))
            behind.setdefault(one[0] if plain else "", []).append(one[1:] if plain else one)
    others = behind.pop("")
    return "|".join([*others, *(f"{letter}(?:{'|'.join(ends)})" for letter, ends in behind.items())])


# Words that stand for a person under 18, and for places and feasts of such people.
WORDS = r"""
    (?:(?:grand|step|school|god|foster)~)?(?:child(?:ren)?|kid(?:do|die|dy)?s?|sons?|daughters?|boys?|girls?)
    (?:(?:baby|little|small|young|tiny|lil|teen|cute)~)(?:child(?:ren)?|kids?|boys?|girls?)
    (?:paper|news|altar|choir)(?:boys?|girls?) nippers? creches? kidz boyz gurl[sz]? grl[sz]? childs childern
    child(?:hood|like|ish) bab(?:y|ies) infants? infancy newborns? neonates? toddlers? orphans? youngsters? youths?
    (?:pre~)?teen(?:[sz]|y|ies?|ish|age|aged|agers?|y~boppers?)? (?:pre~)?tween(?:s|ies?|agers?)?
    (?:pre~)?adolescen(?:ts?|ce) juveniles? minors? under~aged? (?:(?:pre|peri)~)?pub(?:escent|escence|ertal|erty)
    nymphet(?:te)?s? sweet+(?:sixteen|16) barely+legal not+(?:yet+)?(?:of+legal+age|of+age|legal+age|adult) lolis?
    lolitas? shotas? (?:loli|shota|toddler)[ck]ons? pa?edo(?:s|phil(?:es?|ia|iacs?|ic))? csam
    (?:nursery|elementary|primary|grade|middle|junior|high)~school(?:s|ers?|ing)? pre~school(?:s|ers?)? k-12
    junior+high(?!+court) kinder+class kinder~(?:gart|gard)(?:en|ner|ener)s?
    hs+(?:student|freshman|sophomore|junior|senior)s? babes?+in+(?:arms|the+woods?) orphanages? day~care
    (?:grade|grammar|elementary|primary)+pupils? school~(?:pupils?|uniforms?|aged?|skirts?|run|leavers?|friends?|mates?)
    sixth~form(?:ers?)? (?:lower|upper)+(?:sixth|fifth|6th|5th|third|fourth) key+stage+(?:\d|one|two|three|four) ks[1-4]
    gcses? (?:a|o)-?levels?+(?:students?|pupils?|class(?:es)?|candidates?) reception+(?:class(?:es|room)?|pupils?|year)
    play~(?:groups?|schools?)(?!+of) (?:transitional+)?kindy home~rooms? boarding~schoolers?
    prom+(?:queens?|kings?|dates?|night|couples?|court) (?:junior|senior|school)+prom recess+(?:at|in)+school
    in+(?:primary|middle|elementary)(?=\W*$) class(?:room)?+of+pupils
    (?:school|class)+(?:picture|photo|portrait|trip|president|clown|bully|nativity|play|disco|dance|picnic)+day
    head~(?:boy|girl)s? milk+monitor hall+monitors? chyld(?:ren)? chylde? chld(?:ren|rn)?s? chlidr?e?n? chidr?en
    childr(?:en)?z chil?ren childeren kyd[sz]? gurrl[sz]? gorl[sz]? gerl[sz]? grrr?ls? boi[sz]? babb(?:y|ie|ies) babbys?
    bby(?:girl|boy) todd?l[ae]rs? tennagers? teen[ae]?n?gers? teanage(?:rs?)? tenager?s? infents?
    sk(?:oo|ew|u)l~(?:girl|boy|kid|gurl|boi)[sz]? school~gurl[sz]? dau(?:gth|th|ght)ers? nerdlihc dlihc slrig lrig
    minorz? under~agers? underage[dr]s? tweenz? b[ae]by?z (?:gi|g)+(?:rl|irl)s? girr{1,2}l{1,2}[sz]? gii?rll?[sz]?
    boyy[sz]? bboy[sz]? kiidd?[sz]? kidd[sz] teenn[sz]? babyy jail~b8 gir+ls? b+oys? t+eens? tee+ns? bab+y b+aby ba+by
    quincea[nñ]er[ao]s? (?:bar|bat|bas)~mitz?vahs? tots? tykes? bairns? lad(?:die)?s? lass(?:ie)?s? lasses urchins?
    rug~rats? ankle~biters? (?:little|baby|kid)+(?:sister|brother|sis|bro|cousin|niece|nephew)s?
    in+(?:(?:a|an|her|his|their)+)?(?:diaper|nappie|nappy)s?
    too+young+(?:to+(?!die)[a-z]{2,10}|for+(?:school|alcohol|beer|sex|love|work))
    (?:not|isn['’]?t|aren['’]?t|wasn['’]?t)+(?:yet+)?old+enough+to+(?:drive|vote|drink|consent|marry|smoke|buy|work
    |date) (?:can|could)(?:['’]?t|~not)+(?:yet+)?legally+(?:yet+)?(?:drive|vote|drink|consent|marry|smoke|buy|work)
    (?:can|could)(?:['’]?t|~not)+(?:drive|vote|drink)+(?:yet|legally)
    not+yet+(?:a+)?(?:woman|man|women|men|grown(?:~up)?|an+adult|adults) (?:tiny|little|wee|lil)+ones?
    (?:tiny|small|little|mini|wee|lil)+(?:humans?|people|persons?|miss|princess(?:es)?|tykes?|angels?|mite)
    little+(?:man|men|fell(?:ow|a)s?|guys?|lady|ladies|woman|rascals?) young+(?:miss|master|ones?)
    young(?:ling|~['’]?un)s? litt?le?['’]?~uns? (?:wee|little|lil|small)['’]?~['’]?uns? wean(?=\W*$) weans sprogs?
    moppets? poppets? striplings? foundlings? waifs? ragamuffins? guttersnipes? preemies? whippersnappers? munchkins?
    small+fry sonny(?:+boy)? missy juvies? kiddie[sz]? firstborns? first-born grand~bab(?:y|ies)
    trick-?or-?treat(?:ers?|ing) wunderkind(?:s|er)? quinces?
    (?:beaver|cub|girl|boy|tiger|rainbow|brownie)+(?:scouts?|guides?) little+league(?:rs?)?
    pee-?wee+(?:football|hockey|league|rugby|team)s? junior+varsity jv+(?:team|squad|cheer\w{0,7}|player)s?
    (?:child|boy|girl)[\s_-]?lovers? he?bephil(?:es?|ia|iacs?) ephebophil(?:es?|ia|iacs?) pthc kodocon lolli?con
    girl(?:ie|y)s? twelvies? pre-?k(?:indergarten|indergartners?)? gen(?:eration)?+alpha minor-?aged?
    baby~?bro(?:ther)?s? nonage bubs? bubba(?!+[gw]) toddl(?:e|es|ed|ing) (?:pre~)?pubescents? schoolies?
    (?:jhs|shs|junior+high)+(?:students?|pupils?|girls?|boys?|gym|class(?:es)?) (?:first|holy)+communion eagle+scouts?
    princelings? titch(?:es)? youngins? chidlren toodlers? teeagers? adolecents? juvinil(?:e|es)?
    (?:sleeping|suckling|swaddled|nursing|mother+and|newborn)+babes? wee+(?:man|lady|fella|soul) school+prefects?
    leaving+cert(?:ificate)? spelling+bees? transition+year+(?:students?|pupils?|girls?|boys?)
    little+(?:prince(?!+book)|ballerina|scamp|mischief|mite|madam)s? school+(?:choirs?|nativity|plays?|sports+day)
    junior+(?:choirs?|choristers?|lifeguards?|cadets?|golfers?|gymnasts?|footballers?|swimmers?|athletes?)
"""
# Spanish, French, German, Italian and Portuguese, and a few words of others, without accents (ñ stays).
FOREIGN = r"""
    niñ(?:[oa]s?|it[oa]s?|ez) (?:un|una|unos|unas|dos|tres)+nin[oa]s? nin[oa]s much?ach[oa]s? muchachit[oa]s? chic[oa]s
    chica un+chico menores menor+de+(?:edad|idade) bebes? hij[oa]s? colegial(?:a|as|es)? chiquill[oa]s? nen[ea]s?
    nenit[oa]s? chiquit[oa]s? (?:un|una)+menor jovencit[oa]s? parvul[oa]s? enfants? (?:petite|jeune)s?~filles?
    (?:une|la|les|des|deux)+filles? fillettes? garcon(?:net)?s? gamin(?:e?s?) gosses? (?:un|une|des|les|jeunes?)+ados?
    adolescentes? (?:un|une|des|les|deux)+mineure?s? mineures? nourrissons? ecoliere?s? lyceen(?:ne)?s?
    collegien(?:ne)?s? bambins? (?:ein|das|dem|mein|kleine[smn]?|junge[sn]?|nackte[sn]?)+kind(?:es|er|ern)?
    (?:zwei|drei|vier|die|der|viele|mehrere|mit|von|und|spielende|lachende|unsere|meine)+kindern? ma(?:e)?dchen
    ma(?:e)?del(?:s|n)? schulma(?:e)?dchen kinder+(?:spielen|lachen|am|im|auf|und|beim) jungs sa(?:e)?uglinge?[ns]?
    (?:ein|kleine[rn]?|kleine)+jungen? minder~ja(?:e)?hrige?[rsnm]? jugendliche[rsnm]? schu(?:e)?ler(?:in|innen)?
    grundschulen? to(?:e)?chter sohne?s? bambin[oaie] bimb[aei] (?:un|il|piccolo)+bimbo
    ragazz(?:[oaie]|in[oaie]|ett[oaie]) neonat[oaie] minorenn[ei] (?:un|do|tre|quattor|quin|se|dicias?set)dicenn[ei]
    figli[ao]? fanciull[oaie] adolescenti liceal[ei] chaval(?:a|as|es)? chamac[oa]s?
    (?:un|una|unos|unas|la|las|los|el|mi)+(?:cri[oa]|pib[ea]|peque|zagal|mozuel[oa]|bebe)s? pibes? recien+nacid[oa]s?
    huerfan[oa]s? guarderias? preescolar(?:es)? adolescencia parvulario
    (?:escuela|educacion|alumn[oa]s?+de|clase+de|curso+de|en|de)+(?:primaria|secundaria|bachillerato|infantil)
    (?:alumn[oa]|estudiante)s?+de+(?:la+)?(?:eso|instituto|\d) (?:un|una|el|la)+(?:escolar|guagua|nietit[oa]) escolares
    lactantes? impuber(?:es)? infantes? mocos[oa]s? peques quinceanera? cri[oa]s+de ni[nñ]era+de pequenines pequenitos?
    mozalbetes? pubertad pubescentes? pequenuel[oa]s? eleves?
    (?:ecole|classe+de)+(?:maternelle|primaire|elementaire|sixieme|cinquieme|quatrieme|troisieme|seconde|cm[12]|ce[12]
    |cp) (?:college|lycee)+(?:prive|public|francais) (?:un|le|au|du)+(?:college|lycee)(?=\s*(?:$|[,;.]))
    (?:en|de)+(?:cm[12]|ce[12]) nouveau[-\s]nee?s? nouvelle[-\s]nee?s? momes? mioches? marmots? mouflets? minots?
    loupiots? garderie petite?s?+(?:enfants?|freres?|soeurs?|garcons?|fils|bouts?) bouts?+de+chou orphelin(?:e|es|s)?
    puberte fils (?:un|une|le|la|les|des)+(?:jeunot|pucelle|lolita|ado|bebe)s? maternelle
    (?:erst|zweit|dritt|viert|fu(?:e)?nft|sechst|siebt|acht|neunt|zehnt)kla(?:e)?(?:ss|ß)ler(?:in|innen|n)?
    (?:erste|zweite|dritte|vierte|fu(?:e)?nfte|sechste|siebte|achte|neunte|zehnte)[rn]?+klassen?
    klasse+(?:\d|1[0-3])(?!\d) (?!human|man|wom|un|gender)[a-z]{3,12}kind(?:es|er|ern)? schuljungen? buebchen bubchen
    bube?n? konfirmand(?:in|en|innen)? firmlinge? erstkommunion hosenmatz wonneproppen sternsinger
    messdiener(?:in|innen)? abc-?schu(?:e)?tzen? knaben? knirpse? gymnasiast(?:in|en|innen)? go(?:e)?ren?
    neugeborene[snmr]? halbwu(?:e)?chsige[rnms]? heranwachsende[rnms]? pubertat kita(?:s|-?gruppe|-?kinder)?
    kinder~krippe enkel(?:in|innen|s)? waise[n]? lausbub(?:en)? jungspund ju(?:e)?ngling(?:e|s)?
    kleine[rns]?+(?:bruder|schwester|bruders|racker|mann|madchen) steppke
    (?:ein|der|die|das|junge[rs]?)+(?:bube?|bursche|madl|madel|fratz|bengel|spross|nachwuchs|sohn|baby) dreikasehoch
    alunn[oaie] scolar[oaie] scolaresc[ah]
    scuol[ae]+(?:elementar[ei]|medi[ae]|matern[ae]|dell'infanzia|primari[ae]|superiore)
    (?:prima|seconda|terza|quarta|quinta)+(?:media|elementare|liceo) asilo+(?:nido|infantile)
    pargol(?:o|a|i|etto|etti|etta) lattant[ei] marmocchi[oa]? pup[oi]+di orfan[oaie]l?l? orfanell[oaie] fratellin[oi]
    sorellin[ae] infanzia adolescenza puberta (?:un|una|il|la|i|gli|le)+minor[ei](?!+(?:di|che|importanza))
    (?:un|una)+(?:pup[oa]|piccin[oa]|bimbett[oa]) liceo(?=\W*$)
    alun[oa]s?+d[oae]+(?:\w{3,10}o+)?(?:ano|fundamental|medio|escola|primaria|1|2|3|4|5|6|7|8|9)
    ensino+(?:fundamental|medio|infantil|primario) infancia guri(?:a|s|as|zinho)? miud[oa]s? novinh[oa]s?
    recem[-\s]nascid[oa]s? pirralh[oa]s? petiz(?:es)? nenem(?:zinho)? nenens pequerruch[oa]s? orfa(?:o|os|zinha)? cacula
    criancad[ao] molec(?:ada|a|as)? crianc[oa]la rapazinhos? rapazote
    (?:escola|turma)+(?:primaria|infantil|basica|secundaria|da+creche) colegio+(?:infantil|primario) criancas? pequenada
    (?:premiere|primera|prima|primeira|erste|heilige)+(?:communion|comunione?|comunhao|kommunion) petiot(?:e|s|es)?
    tout-petits?? poupons? (?:mi|su|tu|el|la|un|una)+niet[oa]s? (?:meu|minha|seu|sua|um|uma|o|a)+net(?:inh)?[oa]s?
    nietecit[oa]s? monaguill[oa]s? escuincl[ea]s? cabr[oa]+chic[oa] nipotin[oaie] scolarett[oaie] chierichett[oi]
    monell[oaie] discol[oi] (?:il|la|i|le|un|una|piccol[oa])+pup[oiae]
    (?:du|tre|quattr|cinqu|sei|sett|ott|nov|dec|diciassett)enn[ei] figli(?:ol|olett|uol)[oaie] giovanett[oaie]
    (?:beb|herman|pib|guris|guagu|parvul|chamaqu|criatur|chaval|sobrin)(?:it|cit|ill)[oa]s? chaval(?:in|ines)
    chiquitin(?:es)? (?:irmao|irma|bebe)zinh[oa]s? zagal(?:a|es|as)? pivetes? galopins? garnements? rotznasen?
    nesthakchen fru(?:e)?hchen junge[n]?+(?:mit|auf|im|am|in|an|beim|vor)
    (?!hoch|fahr|tanz)[a-z]{3,9}schu(?:e)?ler(?:in|innen)? (?:cuarto|quinto|sexto)+grado catrai[oa]s? (?:um|o|os)+pias?
    coroinhas? meisjes? jongetjes? (?:een|de|twee)+jongens? kindje[s]? peuters? kleuters? tieners? dziewczyn[a-z]{1,5}
    chlopi?ec chlopc[a-z]{1,4} dziec(?:i|ko|ka|mi|iak[a-z]?|iom) niemowl[a-z]{1,3} flick(?:a|an|or|orna)
    pojk(?:e|en|ar|arna) sma+barn pig(?:e|en|er|erne) dreng(?:e|en|ene)? jente[rn]? gutten tytto poika lapsi lapset
    vauva cocu(?:k|klar|gu|klari) kucuk+kiz bebek kislany kisfiu gyerek(?:ek)? holc(?:ick|k)[aiuy] chlapec fetit[ae]
    copi(?:l|i|ii) baietel anak+(?:kecil|perempuan|laki) be+(?:gai|trai) tre+em criancinhas? menin[oa]s? garot[oa]s?
    garotinh[oa]s? raparigas? rapaz(?:es|inho)? filh[oa]s? moleques?
"""
# Years of age, not those of animals and things.
_YEARS_OLD = r"\s?[歳才岁歲](?!の?[犬猫馬牛木車狗]|的[狗猫马牛车])"
_RUSSIAN_AGES = (
    r"пять|шесть|семь|восемь|девять|десять|(?:один|две|три|четыр|пят|шест|сем)надцат[ьи]|двух|тр[её]х|пяти|шести|семи"
    r"|восьми|девяти|десяти|(?<!\d)(?:[1-9]|1[0-7])"
)
# A few words and ages each of other scripts, found within longer runs of letters, as `plain_forms` leaves them: without
# marks, and with syllables taken apart. A number in words after one of tens is an adult's.
SCRIPTS = listed(
    plain_characters(
        rf"""
        少女 少年(?!ジャンプ|マガジン|サンデー) 女孩 男孩 儿童(?!节) 兒童 孩子 小孩 婴儿 嬰兒 幼女 幼児 女の子 男の子
        子供 子ども こども コドモ 赤ちゃん 赤ん坊 ロリ ショタ 未成年 小学(?!館) 中学 小學 中學 高校生 高校の
        高校[一二三] 女子高 男子高 初中 高中 女子生徒 男子生徒 生徒 学童 園児 幼稚園 幼稚园 保育園 保育所 幼儿 乳児
        乳幼児 新生児 児童 女児 男児 小児 幼い 坊や 坊ちゃん お嬢ちゃん 迷子 孤児 息子 初孫 孫娘 キッズ ベビー ティーン
        チャイルド ランドセル セーラー服 学生服 思春期 十代 10代 ロリータ おさな よちよち (?<![新姑老伴看])娘(?![婿家])
        ちびっ わが子 我が子 (?<![学院])[一二三四五六]年生 (?<![学院\d])[1-6]年生 [中高][一二三](?=[の学生女男]) 年级
        年級 新生儿 小宝贝 小娃 未满十[一二三四五六七八] 宝宝 寶寶 萝莉 蘿莉 正太 女童 男童 孩童 幼童 小女生 小男生
        小朋友 少儿 女儿 儿子 초등학교 중학교 고등학교 소녀 소년 아이(?![스폰돌디콘슬템언린섀라패보]) 어린이 아이들 아기
        미성년 여고생 남고생 고등학생 중학생 초등학생 유치원 아동 청소년 꼬마 십대 여중생 유아 로리 ребен ребёно девочк
        девчон девчуш мальчик мальчиш малыш малолет пацан подрост несовершеннолетн младен школьни детск дети детей дочк
        дочер сынок сынишк внучк классни[кц] груднич тинейджер детсад гимназист новорожд طفل بنت فتاة أطفال اطفال صبي
        مراهق קטינ ילדה ילדים ילד תינוק παιδι κοριτσι αγορι μωρο εφηβ बच्च लड़क เด็ก
        (?<!\d)(?:\d|1[0-7]){_YEARS_OLD} (?<![二三四五六七八九百])十[一二三四五六七]?{_YEARS_OLD}
        (?<![十百])[一二三四五六七八九]{_YEARS_OLD} (?<!\d)(?:\d|1[0-7])\s?살
        (?<!스물)(?<!서른)(?<!마흔)(?:한|두|세|네|다섯|여섯|일곱|여덟|아홉|열)\s?살
        (?<![а-я-])(?<!дцат[ьи]\s)(?<!сорок\s)(?<!сорока\s)(?<!десят\s)(?<!десяти\s)(?:{_RUSSIAN_AGES})\s?(?:лет(?![а-я])(?!\s?назад)
        |-?летн)
        """
    )
)
# Words that are also found with gaps, digits or signs among their letters. The short ones have a gap at every letter
# or at none: with a single gap they can be parts of two common words ("k id").
HIDDEN_WORDS = (
    "child", "children", "kids", "toddler", "teenage", "teenager", "preteen", "schoolgirl", "schoolboy", "underage",
    "infant", "adolescent", "juvenile", "minor", "minors", "newborn", "babies", "girls", "boys", "teens", "lolita",
    "youth", "daughter", "tween", "puberty", "jailbait", "orphan", "preschool", "highschool", "schoolkid", "pedophile",
)  # fmt: skip
SHORT_HIDDEN_WORDS = ("kid", "boy", "girl", "teen", "baby", "loli")
# Unsafe words that are found in the same way.
HIDDEN_UNSAFE_WORDS = (
    "naked", "nude", "nudity", "sexy", "sexual", "porn", "erotic", "nsfw", "bloody", "murder", "topless", "lingerie",
)  # fmt: skip

# What makes a picture of a minor unsafe: stems of sexual and of violent words. Words from everyday captions of children
# are not among them, such as swimsuits, kisses, shots at a goal and toy guns.
SEXUAL = r"""
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
VIOLENT = r"""
    blood(?:y|ied|ier|stained|bath|shed)? bleed(?:s|ing)? gor(?:e|y) kill(?:s|ed|er|ers|ing)? murder[a-z]{0,4}
    corpses? cadavers? dead+(?:body|bodies)
    dead+(?:baby|child|children|boy|boys|girl|girls|kid|kids|infant|toddler|teen) decapitat[a-z]{1,4}
    behead[a-z]{0,4} dismember[a-z]{0,4} mutilat[a-z]{1,4} disembowel[a-z]{0,5} tortur[a-z]{1,4} stabb(?:ed|ing)
    strangl[a-z]{1,4} hanged lynch[a-z]{0,4} suicid[a-z]{1,3} self~harm[a-z]{0,3} gunshots? shot+dead
    beaten+(?:up|to|by) wounded massacr[a-z]{1,3} slaughter[a-z]{0,3} execut(?:ed|ion|ions) assault(?:s|ed|ing)?
    kidnap[a-z]{0,4} hostages? traffick[a-z]{1,3} drown(?:ed|ing) burn(?:ed|ing|t)+alive cannibal[a-z]{0,4}
    violen(?:t|tly|ce) brutal[a-z]{0,4} starv(?:ed|ing) enslaved
"""
