"""Names and titles that hold words of minors: parts of the harmless phrases, but read with their capitals."""

from __future__ import annotations

# Names, in upper and lower case as they are written: "the Beach Boys", while "beach boys" are boys on a beach.
NAMES = (
    r"(?:Beach|Backstreet|Pet Shop|Beastie|Oak Ridge) Boys",
    r"(?:Fall Out|Soulja|Danny|Game|Nature) Boy|Boy George|Boyz II Men|La-Z-Boy",
    r"(?:Spice|Golden|Indigo) Girls|Girls Aloud",
    r"Billy the Kid|Sundance Kid|Cisco Kid|Kid (?:Rock|Cudi|Creole|A)(?![a-z])",
    r"(?:Julia|Lee|Lincoln|Jane|Desmond) Child|Destiny[’']s Child|Childish Gambino|Child Harold",
    r"Sons of (?:Anarchy|Liberty|Norway|Ben)|& Sons|and Sons (?:hardware|Hardware|Ltd|Inc|Co)(?![a-z])",
    r"(?:Jersey|The Lost|Trailer Park|Hardy|Proud|Bowery|Pep|Sunshine|Nickel|Dead End) Boys(?! (?:in|at|on) )"
    r"|Bad Boys (?:II|2|for Life)",
    r"Boys Don[’']t Cry|The Boys (?:poster|series|TV)|The Boy (?:and the Heron|Who Lived|Erased)|About a Boy (?=film"
    r"|movie|poster|novel)|Boy (?:Meets World|Erased)",
    r"(?:Astro|Danny|Harley Fat) ?Boy(?![a-z])|Boyz n the Hood|Boy(?:zone|genius)|Beat Boy|Boy Harsher|Boys (?:II"
    r"|2) Men|The Boy in the Striped|Boy Scouts of America (?:headquarters|building|logo)",
    r"(?:Mean|Derry|Powerpuff|Calendar|Gilmore|2 Broke|Two Broke|Cheetah) ?Girls(?! (?:in|at|on) )",
    r"(?:Gossip|Gone|Tank|Uptown|Jessie[’']s) ?Girl(?![a-z])",
    r"[Tt]he Girl (?:with the Dragon Tattoo|on the Train|Who Played|from Ipanema|Next Door)|Girl,? Interrupted"
    r"|Girls Just Want",
    r"(?:Karate|Wimpy|Kentucky|Cincinnati|Spy|Whiz|Cabbage Patch|Sour Patch|Comeback|Heartbreak) Kids?(?![a-z])",
    r"New Kids on the Block|I Shrunk the Kids|Kids[’']? Choice|Kids (?:See Ghosts|in the Hall|Are Alright)"
    r"|Kid (?:Icarus|Galahad|Laroi|Ink|Congo|Koala|Loco|Creole|Dynamite)",
    r"Children of (?:Men|the Corn|Dune|Bodom|Hurin)|Midnight[’']s Children|City of Lost Children"
    r"|Children[’']s Crusade",
    r"Childhood[’']s End|Child[’']s Play|Child 44|Voodoo Child|Childs? (?:Ballads?|Restaurants?)",
    r"Rosemary[’']s Baby|Million Dollar Baby|Bridget Jones[’']s Baby|Bringing Up Baby|Baby (?:Driver|Yoda|Groot"
    r"|Spice|Mama|Reindeer|Boom|Keem|Jane|Bjorn|Björn|Huey|Face Nelson|Gap|Dior|Phat|Lips|Shark|Metal|Doc"
    r"|One More Time)",
    r"Beanie Bab(?:y|ies)|Jelly Bab(?:y|ies)|Water Babies|Ice Ice Baby|Achtung Baby|Be My Baby|The Boss Baby|Bab(?:y"
    r"|ies) ?[\"'’]?R[\"'’]? Us",
    r"Teen (?:Vogue|Wolf|Titans|Choice|Top|Mom)|Teenage (?:Mutant Ninja|Dream|Fanclub|Engineering|Wasteland|Kicks"
    r"|Riot)|Smells Like Teen",
    r"Sixteen Candles|Seventeen (?:[Mm]agazine|Again)|17 Again|Sweet Sixteen by|(?:13|Thirteen) Going on (?:30"
    r"|Thirty)|The Edge of Seventeen",
    r"High School Musical|Kindergarten Cop|School of Rock|Rushmore|Never Been Kissed|Orphan Black|The Orphan Master",
    r"[A-Z][a-z]+ and Son(?:s)?(?= (?:Ltd|Inc|Co|Garage|Plumbing|Butchers?|Builders|Bakery|Funeral|Hardware|Motors"
    r"|Jewell?ers|shop|sign|store|van|truck|Removals))",
    r"(?:Steptoe|Sanford|Dombey|Harland|Wolff) and Sons?|Sons and Lovers|& Son(?![a-z])|Son of (?:Man|God|Sam|Kong)"
    r"|Native Son|Sons of (?:the Desert|Katie|Perdition)",
    r"Mumford and Sons|Coal Miner[’']s Daughter|Ryan[’']s Daughter|(?:Captain|General|Farmer|Bonesetter"
    r"|Time Traveler|Calligrapher|Hangman)[’']s Daughter",
    r"Sonic Youth|Youth (?:Dew|Lagoon|to the People)|Missy Elliott|Lassie(?= (?:Come|film|collie|movie|poster))"
    r"|Shota (?:Rustaveli|Imanaga)",
    r"Nena (?=concert|live|album)|(?:Captain|Billy|Jason|Sidney|Cole) Kidd?(?![a-z])|Juniors? Mints?|Little (?:Women"
    r"|Miss Sunshine|Man Tate|Richard|Italy|Boy bomb)",
    r"(?:Friars?|Order of) Minor|Leo Minor|Gen Alpha Romeo|American Girl (?:store|Place)|Tiny Tot(?:s)? (?:van|sign)"
    r"|Toddlers? & Tiaras",
    r"Daughters of the American Revolution|Girl with a Pearl Earring|Boy with the Arab Strap|Minor Swing|Little Prince",
    r"(?:Material|Brown Eyed|Funny|Valley) Girl|Blue Boy|Sweet Child O|Child in Time|Son of a Preacher Man|Kid Ory",
    r"Father and Son(?= by)|The Kid(?= by| Detective)|Sonny (?:Rollins|Liston|Bono|Stitt|and Cher)",
    r"Lolita(?= by (?:V|Nabokov))|(?:El|La) Niñ[oa](?=(?: and La Niña|\W{1,3}(?:mapa|map|clima|temperat|oce|paci|sequ"
    r"|lluvia|fen|weather|warm|chart)))",
    r"Baby (?:Ruth|Bel)|Teen Spirit|Minor Threat|Ursa Minor|Canis Minor|Asia Minor|Morris Minor",
    r"(?:[Ii]n|[Kk]ey of|[Cc]hord of) A minor(?![A-Za-z])|(?<![A-Za-z])A(?:[#♯♭]|[ -](?:flat"
    r"|sharp)) minor(?![A-Za-z])",
)
