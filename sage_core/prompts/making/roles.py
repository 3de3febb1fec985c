"""Which words stand where in captions: nouns, what qualifies them, what is done, and where."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

from .. import everyday_words as known
from . import lexicon
from .lexicon import word_set
from .reading import BESIDE, FUNCTION, Caption
from .settings import Kind


def _nouns(entries: Iterable[str]) -> frozenset[str]:
    return frozenset(lexicon.singular(entry.split()[-1]) for entry in entries)


# Groups of words of which none takes the place of another group's. The encoder says which group other words belong to.
PERSON, ANIMAL, FOOD, DRINK, OBJECT, SPOT, NATURE, VEHICLE, FIXTURE = (
    "person", "animal", "food", "drink", "object", "place", "nature", "vehicle", "fixture"
)  # fmt: skip
_DISHES = word_set("""
    pizza sandwich salad cake hamburger pie soup rice bread cheese fruit meat
""")
_THING_GROUPS = {
    PERSON: _nouns(known.PEOPLE) | _nouns(("people", "lady", "guy", "person", "player", "worker")),
    ANIMAL: _nouns(each for animals, _ in known.ANIMALS.values() for each in animals),
    FOOD: _nouns(known.PRODUCE) | _DISHES,
    DRINK: word_set("beer wine coffee tea milk juice soda lemonade cocoa cider champagne whiskey vodka rum"),
    SPOT: _nouns(known.LANDSCAPES) | _nouns(known.ROOMS) | _nouns(known.BUILDINGS) | word_set(
        "street road field park city sky grass snow water ocean sea lake river wall floor room yard garden building "
        "sidewalk shore hill sand night rain town village pier alley counter ground desert meadow dune lawn pool "
        "pasture winter midnight darkness airport station store runway track intersection"),
    NATURE: _nouns(known.FLOWERS) | word_set("tree branch leaf flower bush plant cloud rock stone log moss ivy hedge"),
    VEHICLE: _nouns((*known.VEHICLES, *known.BOATS, *known.FLYERS)) - word_set("kite balloon drone") | word_set(
        "vehicle motorbike jet plane airplane bike engine truck"),
    FIXTURE: _nouns(known.FURNITURE) | word_set(
        "bed sofa couch toilet sink bathtub shower oven stove refrigerator cabinet door window wardrobe bookcase fence "
        "pole sign hydrant meter mailbox fountain statue clock cupboard"),
    OBJECT: _nouns((*known.THINGS, *known.CLOTHES)) | {"phone"},
}  # fmt: skip
# Beyond what everyday captions say.
_QUALITY_GROUPS = {
    "color": frozenset(known.COLORS) | word_set(
        "violet lilac lavender magenta maroon crimson scarlet teal navy indigo cyan olive gold gray tan "
        "ivory khaki burgundy multicolored rainbow-colored"),
    "material": frozenset(known.MATERIALS) | word_set(
        "metallic wool woolen knitted denim silk satin lace rubber porcelain brass iron bamboo crystal "
        "transparent opaque"),
    "pattern": frozenset(known.PATTERNS) | word_set(
        "dotted speckled freckled mottled marbled banded pinstriped zigzag tartan chequered gingham paisley "
        "houndstooth herringbone camouflage tie-dyed flowered"),
    "shape": frozenset(known.SHAPES) - {"tall", "narrow", "wide"},
    "size": frozenset(known.SIZES) | {"narrow", "wide", "long", "mini"},
    "state": frozenset(known.QUALITIES) | word_set("bright beautiful fancy pretty"),
    "coat": word_set("fluffy furry shaggy hairy woolly sleek curly-haired long-haired short-haired"),
}  # fmt: skip
# Each has a name of its own in English, so that none is another one, however near an encoder puts them.
BASIC_COLORS = word_set("black white red green yellow blue brown orange pink purple grey gray")
# Of those the words that everyday captions say themselves.
_EVERYDAY = frozenset((*known.COLORS, *known.MATERIALS, *known.PATTERNS, *known.SHAPES, *known.SIZES, *known.QUALITIES))
STYLE_WORDS = word_set("""
    watercolor watercolour painting sketch cartoon anime manga comic drawing illustration photograph photo engraving
    woodcut mosaic collage render graffiti impressionism impressionist cubism cubist surrealism surrealist art pastel
    charcoal caricature lithograph etching fresco mural pixel-art steampunk cyberpunk minimalism minimalist baroque
    renaissance abstract photorealistic origami claymation doodle silhouette hologram sepia monochrome grayscale
    greyscale ukiyo-e gouache noir expressionism expressionist pointillism rococo isometric vaporwave synthwave deco
""")
_LEAST_USES = 4
# A word said of so many nouns belongs to none of them: "tangerine" of "tangerine kite", not "fire" of "hydrant".
_QUALIFIED, _MOST_SHARE = 10, 0.3
# Near misses of these groups are said of things that captions say them of: no leather sink.
SAID_OF = ("state", "material")
# These say nothing without the word before them: "old fashioned", "long haired", "far sighted".
NEVER_ALONE = word_set("""
    fashioned haired colored coloured shaped sized legged faced eyed sighted minded hearted sided tailed necked topped
""")
# What lamps do says how they look.
_SHINING = word_set("glowing gleaming glittering glimmering shimmering shining sparkling twinkling flickering")
_METALLIC = word_set("rusty rusted broken cracked shattered dented chipped corroded tarnished polished")
_SOFT = _nouns(known.CLOTHES) - {"helmet"} | word_set("""
    towel curtain carpet book notebook paper balloon tent hammock backpack calendar puppet rope shoe wallet tie sofa
    couch armchair kite guitar violin piano candle pencil suitcase surfboard vase ball broom beak coin
""")
_FURRED = _nouns(known.CLOTHES) - {"helmet"} | word_set("""
    pillow blanket rug cushion bag purse glove boot slipper toy doll
""")
_NO_FUR = _nouns(known.ANIMALS["bird"][0]) | word_set("parrot chicken rooster goose duck turkey turtle crocodile bird")
_METALS = word_set("metal metallic copper steel bronze brass iron")
_SEWN = frozenset(("quilted", "embroidered"))
# No house is of wool, and no scarf of stone.
_OF_CLOTH = word_set("leather velvet wool woolen knitted denim silk satin lace paper cardboard wicker rubber")
_HARD = (_QUALITY_GROUPS["material"] - _OF_CLOTH) | _METALS
_CLOTH = _FURRED | word_set("towel curtain tent hammock backpack armchair couch sofa chair bed tablecloth tie")
CLOTHING = _nouns(known.CLOTHES) | word_set("tie glasses sunglasses shorts jeans pants shoe boot glove goggles costume")
_WOVEN = _nouns(known.CLOTHES) - {"helmet"} | word_set("pillow blanket rug cushion towel curtain carpet tablecloth tie")
_NO_OBJECTS = word_set("moon sun beak feather dragon bird animal")
_BUILDINGS = _nouns(known.BUILDINGS) | {"station"}
_PAVED = word_set("wall floor room street road sidewalk garage pier")
# What stands in rooms alone, and what outside of them alone.
_INSIDE = word_set("""
    toilet toilette sink bathtub tub shower urinal bidet refrigerator fridge oven stove bed microwave dishwasher
    bathroom restroom kitchen bedroom couch sofa faucet dresser nightstand hallway office
""")
_OUTSIDE = _THING_GROUPS[VEHICLE] | word_set("""
    traffic hydrant meter road street tarmac runway highway track railroad intersection skyscraper jetliner airliner
    motor cyclist biker rider wave sail sky cloud flying sign pole tree church building fence barn
""")
_WET = word_set("lake sea ocean pond river water sky")
_ROOMS = frozenset(room.split()[-1] for room in (*known.ROOMS, *known.INDOORS)) | word_set("pool cave tent elevator")
_OPEN = (
    frozenset(place.split()[-1] for place in (*known.LANDSCAPES, *known.OUTDOORS, *known.TIMES))
    | word_set("pool ocean sea sunrise sundown dusk twilight")
) - word_set("station market")
# Done between two or more.
MUTUAL = word_set("kiss hug embrace cuddle fight wrestle argue marry")
# Who does so small a share of what is done does not do it.
_HARDLY = 0.1
# Of each group of listed words so many stand for it.
_SEEDS = 12
# With fewer nouns that captions say a quality of, things are added of which many may be said.
_FEW_BEARING = 20
_WEARABLE = _nouns(known.CLOTHES) | _nouns(known.SMALL_THINGS) | _nouns(("umbrella", "chair", "wall", "tie", "bed"))


class Roles:
    """How often words stand in which role in some captions."""

    def __init__(self, captions: Sequence[Caption]) -> None:
        """Count what stands where."""
        self.captions = captions
        self.nouns: Counter[str] = Counter()
        self.qualities: Counter[str] = Counter()
        self.deeds: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.together: dict[str, Counter[str]] = defaultdict(Counter)
        self.qualified: dict[str, Counter[str]] = defaultdict(Counter)
        self.before_place: dict[str, Counter[str]] = defaultdict(Counter)
        self.found_at: dict[str, Counter[str]] = defaultdict(Counter)
        self.done_by: dict[str, Counter[str]] = defaultdict(Counter)
        self._bearing: dict[frozenset[str], frozenset[str]] = {}
        self._at_home: dict[tuple[str, ...], frozenset[str]] = {}
        # What is said of a thing after "with", and how many different things it is said of.
        self.with_what: dict[str, Counter[str]] = defaultdict(Counter)
        for caption in captions:
            self._count(caption)

    def _count(self, caption: Caption) -> None:
        for phrase in caption.phrases:
            self.nouns[lexicon.singular(caption.words[phrase.head])] += 1
            doing = caption.word(phrase.end + (caption.word(phrase.end) in ("is", "are")))
            if doing.endswith("ing"):
                who = listed_group(caption.words[phrase.head], Kind.THING)
                self.done_by[lexicon.verb_base(doing)][who] += 1
            if caption.word(phrase.end) == "with":
                self.with_what[caption.mark(phrase)][lexicon.singular(caption.words[phrase.head])] += 1
            qualities = set(caption.modifiers(phrase))
            self.qualities.update(qualities)
            for one in qualities:
                self.together[one].update(qualities - {one})
                self.qualified[one][lexicon.singular(caption.words[phrase.head])] += 1
        for deed in caption.deeds:
            self.deeds[lexicon.verb_base(caption.words[deed.at])] += 1
        if place := caption.place:
            head = caption.words[place.head]
            self.places[head] += 1
            nouns = {lexicon.singular(caption.words[each.head]) for each in caption.phrases if each.head != place.head}
            self.found_at[head].update(nouns)
            first, second = caption.words[place.start], caption.words[place.start + 1]
            if first not in ("in", "on", "at", "after"):
                return
            self.before_place[head][f"{first} {second}" if second in ("a", "an", "the") else first] += 1

    def words_of(self, kind: Kind) -> Counter[str]:
        """The words that stand where a concept of this kind would, with how often."""
        if kind == Kind.QUALITY:
            return self.qualities
        if kind == Kind.PLACE:
            return self.places
        return self.deeds if kind == Kind.ACT else self.nouns

    def is_bound(self, quality: str) -> bool:
        """Whether a word qualifies hardly more than one noun: "fire" of "fire hydrant", "sunny" of "sunny shore"."""
        nouns = self.qualified[quality]
        return sum(nouns.values()) >= _LEAST_USES and max(nouns.values()) > 0.6 * sum(nouns.values())

    def bearing(self, qualities: frozenset[str]) -> frozenset[str]:
        """The nouns that captions say some of these qualities of; the listed things where they say few."""
        if qualities not in self._bearing:
            self._bearing[qualities] = self._bearing_of(qualities)
        return self._bearing[qualities]

    def _bearing_of(self, qualities: frozenset[str]) -> frozenset[str]:
        said = sum((self.qualified[quality] for quality in qualities), Counter[str]())
        nouns = frozenset(noun for noun, times in said.items() if times > 1)
        nouns -= _THING_GROUPS[SPOT] | _THING_GROUPS[PERSON] | _THING_GROUPS[ANIMAL]
        return nouns if len(nouns) >= _FEW_BEARING else nouns | _WEARABLE

    def at_home(self, places: tuple[str, ...]) -> frozenset[str]:
        """The nouns that captions find at some of these places, so that a prompt may put them there."""
        if places not in self._at_home:
            said = sum((self.found_at[place] for place in places if place in self.found_at), Counter[str]())
            self._at_home[places] = frozenset(noun for noun, times in said.items() if times > 1)
        return self._at_home[places]

    def doers(self, deed: str) -> frozenset[str]:
        """Who does it by the captions: persons, animals or both; persons where they say too little."""
        counts = {who: self.done_by.get(lexicon.verb_base(deed), Counter())[who] for who in (PERSON, ANIMAL)}
        total = sum(counts.values())
        if total < _LEAST_USES:
            return frozenset({PERSON})
        return frozenset(who for who, times in counts.items() if times > max(1, _HARDLY * total))

    def said_of_any(self, mark: str) -> bool:
        """Whether captions say of many things that they are "with" this: "with dots", not "with a shade"."""
        if mark == BESIDE:
            return True
        said = self.with_what.get(mark, Counter())
        return bool(mark) and len(said) >= _QUALIFIED and max(said.values()) < _MOST_SHARE * sum(said.values())

    def goes_with_any(self, word: str) -> bool:
        """Whether a quality may be said of any noun."""
        if listed_group(word, Kind.QUALITY) in ("color", "size", "pattern") or word in ("old", "new", "single", "lone"):
            return True
        said = self.qualified[word]
        total = sum(said.values())
        return total >= _QUALIFIED and max(said.values()) < _MOST_SHARE * total and self.nouns[word] < 0.3 * total and (
            len(said) > 0.2 * len(self.nouns) or lexicon.lemmas(word).keys() == {"ADJ"})  # fmt: skip

    def kind_of(self, word: str) -> Kind | None:
        """The kind that captions use a word as, if they use it often enough."""
        noun, quality, place = self.nouns[lexicon.singular(word)], self.qualities[word], self.places[word]
        if noun + quality < _LEAST_USES and place < _LEAST_USES:
            return None
        if quality > noun and quality >= place:
            return Kind.QUALITY
        return Kind.PLACE if place >= 0.4 * max(noun, 1) else Kind.THING


def said_place(place: str, roles: Roles, like: Sequence[str] = ()) -> str:
    """A place with the words that captions put before it: "on the beach"; else those of the places that are like it."""
    leads = roles.before_place.get(place)
    if said := leads.most_common(1)[0][0] if leads else _leads().get(place):
        first, _, article = said.partition(" ")
        return f"{first} {lexicon.article(place)} {place}" if article in ("a", "an") else f"{said} {place}"
    counted = lexicon.is_counted(place)
    # What surrounds a place of several words says little of it: "on" a beach and yet "in" a swimming pool.
    for word in () if " " in place else like:
        if (leads := roles.before_place.get(word)) and lexicon.is_counted(word) == counted:
            lead = leads.most_common(1)[0][0]
            return f"{lead} {place}" if not lead.endswith((" a", " an")) else f"{lead.split()[0]} the {place}"
    return f"in the {place}" if counted else f"in {place}"


@cache
def _leads() -> dict[str, str]:
    """What the package's own captions put before places: "in the" of "desert"."""
    entries = (*known.INDOORS, *known.OUTDOORS, *known.TIMES, *known.ANIMAL_PLACES.values())
    found: dict[str, str] = {}
    for words in [each.split() for entry in entries for each in ((entry,) if isinstance(entry, str) else entry)]:
        start = 2 if words[1] in ("a", "an", "the") else 1
        if words[0] in ("in", "on", "at", "after"):
            found.setdefault(" ".join(words[start:]), " ".join(words[:start]))
    return found


def listed_group(word: str, kind: Kind) -> str:
    """The group that the package's own lists put a word into, "" for none."""
    groups = _QUALITY_GROUPS if kind == Kind.QUALITY else _THING_GROUPS
    word = word if kind == Kind.QUALITY else lexicon.singular(word)
    return next((name for name, words in groups.items() if word in words), "")


def is_everyday(quality: str) -> bool:
    """Whether the package's own captions say a quality: "green", not "khaki"."""
    return quality in _EVERYDAY


def takes(noun: str, quality: str, group: str, others: Sequence[str] = ()) -> bool:
    """Whether a noun with some other qualities may have one of a listed group: no rusty beach, and no furry bus."""
    of = listed_group(noun, Kind.THING)
    if quality in _SEWN:
        return noun in _CLOTH
    if group == "coat":
        return (of == ANIMAL and noun not in _NO_FUR) or noun in _FURRED | {"animal"}
    if group == "pattern" and of == ANIMAL:
        return quality in ("spotted", "striped")
    if group not in ("state", "material"):
        return True
    if of in (PERSON, ANIMAL, FOOD, DRINK, NATURE) or noun in _NO_OBJECTS:
        return False
    if quality in _METALLIC:
        of_metal = (_QUALITY_GROUPS["material"] - _METALS).isdisjoint(others)
        return of_metal and noun not in _SOFT | _FURRED and (of != SPOT or noun in _BUILDINGS)
    if quality in _OF_CLOTH and (of in (SPOT, VEHICLE) or noun in _BUILDINGS):
        return False
    if quality in _HARD and noun in _WOVEN:
        return False
    return of != SPOT or noun in _BUILDINGS | _PAVED


def found_at(words: Sequence[str], place: str) -> bool:
    """Whether what a caption names may be at a place: no bus in a kitchen, and no toilet on a beach."""
    last, named = place.split()[-1], {lexicon.singular(word) for word in words}
    if last in _WET and not named.isdisjoint(_THING_GROUPS[ANIMAL] | _OUTSIDE if last == "sky" else _OUTSIDE):
        return False
    return (last not in _ROOMS or named.isdisjoint(_OUTSIDE)) and (last not in _OPEN or named.isdisjoint(_INSIDE))


def seeds_of(kind: Kind) -> dict[str, str]:
    """Listed words that stand for their groups, and the group of each."""
    groups = _QUALITY_GROUPS if kind == Kind.QUALITY else _THING_GROUPS
    return {word: name for name, words in groups.items() for word in sorted(words) if word.isalpha()}


def some_seeds(kind: Kind) -> list[str]:
    """Some listed words of each group, evenly."""
    by_group: dict[str, list[str]] = {}
    for word, group in seeds_of(kind).items():
        by_group.setdefault(group, []).append(word)
    return [word for words in by_group.values() for word in words[:: max(1, len(words) // _SEEDS)]]


def listed_kind(word: str) -> Kind | None:
    """The kind that the package's own lists, or a word's only part of speech, tell."""
    if word in STYLE_WORDS:
        return Kind.STYLE
    if word in _SHINING:
        return Kind.QUALITY
    if group := listed_group(word, Kind.THING):
        return Kind.PLACE if group == SPOT and word not in _nouns(known.BUILDINGS) else Kind.THING
    if listed_group(word, Kind.QUALITY):
        return Kind.QUALITY
    parts = lexicon.parts_of(word)
    if word.endswith("ing") and lexicon.verb_base(word) and "NOUN" not in lexicon.lemmas(word):
        return Kind.ACT
    if parts == {lexicon.ADJECTIVE} or (word.endswith("ed") and "NOUN" not in lexicon.lemmas(word)):
        return Kind.ACT if word == "asleep" else Kind.QUALITY
    if word.endswith("ing") and lexicon.verb_base(word):
        return Kind.ACT
    return None


def is_content(word: str) -> bool:
    """Whether a word says something by itself."""
    return word.isalpha() and len(word) > 2 and word not in FUNCTION
