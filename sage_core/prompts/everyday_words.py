"""The words of everyday captions, by what they name: a text of our own, in which no minor, no weapon and no harm is."""

from __future__ import annotations


def _list(text: str) -> tuple[str, ...]:
    """Entries parted by commas."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


PEOPLE = _list("""
    woman, man, farmer, nurse, baker, fisherman, carpenter, gardener, musician, painter, mechanic, waiter, chef, dancer,
    cyclist, hiker, surfer, skier, photographer, librarian, tailor, barber, potter, plumber, electrician, welder, pilot,
    sailor, shepherd, florist, butcher, postman, conductor, violinist, guitarist, drummer, pianist, singer, runner,
    rider, tourist, commuter, vendor, shopkeeper, engineer, scientist, doctor, judge, lawyer, architect, businessman,
    firefighter, bus driver, street musician, old man, old woman, elderly couple, construction worker, office worker
""")
# What people do without an object, with the places that suit it.
PEOPLE_ACTS = {
    "outdoors": _list("""
        walking, running, sitting, standing, resting, waiting, dancing, singing, laughing, smiling, reading, talking,
        kneeling, stretching, camping, hiking, jogging, painting, whistling, juggling, working, fishing
    """),
    "indoors": _list("""
        sitting, standing, reading, cooking, working, writing, sleeping, dancing, singing, studying, cleaning, laughing,
        waiting, talking, knitting, sewing, baking, painting, exercising, resting
    """),
}
# What people do with a thing; the thing has its article where it needs one.
DEEDS = {
    "outdoors": _list("""
        riding a bicycle, riding a horse, flying a kite, holding an umbrella, walking a dog, carrying a ladder,
        pushing a wheelbarrow, watering plants, picking apples, playing the violin, playing chess, throwing a frisbee,
        kicking a ball, selling flowers, selling vegetables, feeding pigeons, painting a fence, repairing a bicycle,
        washing a car, driving a tractor, carrying a basket, pulling a cart, holding a map, taking a photograph,
        reading a newspaper, eating an ice cream, drinking coffee, sweeping leaves, playing the guitar, planting a tree,
        rowing a boat, paddling a canoe, carrying a surfboard, looking through binoculars, wearing a straw hat,
        pushing a shopping cart, riding a skateboard, riding a scooter, holding a balloon, shearing a sheep,
        hanging up laundry, building a wall, loading a truck, leading a donkey, flying a drone
    """),
    "indoors": _list("""
        reading a book, cutting a cake, kneading dough, washing dishes, chopping onions, peeling potatoes, frying eggs,
        stirring a pot of soup, typing on a laptop, talking on a telephone, playing the piano, playing cards,
        playing the drums, ironing a shirt, folding towels, hanging a picture, fixing a lamp, sewing a dress,
        painting a portrait, drinking tea, drinking coffee, eating noodles, eating a sandwich, pouring milk,
        setting the table, watering a plant, holding a cat, brushing a dog, writing a letter, wrapping a gift,
        carrying a tray, trying on a coat, polishing shoes, looking into a mirror, opening a window, vacuuming a carpet,
        lighting a candle, slicing bread, decorating a cake, packing a suitcase, repairing a clock, tuning a guitar
    """),
}
# Animals with what they do and where: by kind.
ANIMALS = {
    "pet": (
        _list("dog, cat, puppy, kitten, rabbit, hamster, parrot, poodle, beagle, tabby cat, collie, terrier"),
        _list("sleeping, sitting, lying, resting, playing, yawning, stretching, looking around"),
    ),
    "farm": (
        _list("horse, cow, sheep, goat, donkey, pig, chicken, rooster, goose, duck, pony, llama, turkey, bull"),
        _list("grazing, standing, resting, walking, running, eating, drinking, waiting"),
    ),
    "wild": (
        _list("""
            elephant, giraffe, zebra, lion, tiger, bear, wolf, fox, deer, monkey, kangaroo, panda, leopard, rhinoceros,
            hippopotamus, squirrel, hedgehog, camel, bison, gorilla, moose, raccoon, crocodile, turtle, koala
        """),
        _list("walking, running, standing, sleeping, resting, hiding, drinking, lying, climbing"),
    ),
    "bird": (
        _list("""
            owl, eagle, swan, pigeon, sparrow, seagull, penguin, peacock, flamingo, heron, robin, crow, pelican, hawk
        """),
        _list("flying, sitting, standing, resting, landing, nesting, singing"),
    ),
}
ANIMAL_PLACES = {
    "pet": _list("""
        on a sofa, on a rug, in a basket, on a bed, in a garden, on a porch, under a table, by a window, on a chair,
        in the kitchen, on the floor, in the grass, beside a fireplace, on a balcony, in a living room
    """),
    "farm": _list("""
        in a field, in a meadow, near a barn, on a farm, behind a fence, in the grass, on a hill, by a stream,
        beside a tractor, in the mud, in the snow, under a tree, on a dirt road
    """),
    "wild": _list("""
        in the forest, in the savanna, near a river, on a rock, under a tree, in the snow, in the jungle, at the zoo,
        in tall grass, on a hillside, in the desert, by a waterhole, in the rain
    """),
    "bird": _list("""
        on a branch, on a roof, over the sea, on a fence, on a lake, near a pond, on a rock, in a park, on the beach,
        above the trees, on a lamp post, in a nest, on a wire
    """),
}
FOODS = _list("""
    pizza, sandwich, salad, cake, hamburger, pie, omelette, pancake, burrito, taco, bagel, muffin, pretzel, waffle,
    hot dog, lasagna, bowl of soup, bowl of rice, plate of spaghetti, loaf of bread, slice of cheese, cup of coffee,
    cup of tea, glass of milk, glass of juice, bowl of cereal, plate of sushi, basket of strawberries, bunch of grapes
""")
PRODUCE = _list("""
    apple, orange, banana, lemon, pear, peach, tomato, carrot, potato, onion, pumpkin, mushroom, pepper, cucumber,
    melon, pineapple, mango, plum, cherry, egg, donut, cookie, cupcake, croissant, avocado, cabbage, radish
""")
VEHICLES = _list("""
    car, bus, truck, van, taxi, bicycle, motorcycle, scooter, tractor, tram, train, fire engine, pickup truck, camper,
    double-decker bus, sports car, delivery van, steam train, convertible, bulldozer, ambulance
""")
BOATS = _list("sailboat, canoe, ferry, rowing boat, fishing boat, yacht, ship, kayak, raft, tugboat, steamboat")
FLYERS = _list("airplane, helicopter, hot air balloon, kite, glider, biplane, seaplane, drone")
THINGS = _list("""
    chair, table, lamp, clock, vase, bottle, suitcase, guitar, umbrella, bucket, basket, ladder, mirror, bowl, cup,
    teapot, candle, pillow, backpack, hat, book, radio, telephone, camera, laptop, keyboard, television, piano, violin,
    drum, trumpet, bench, barrel, box, wheelbarrow, broom, statue, flower pot, picture frame, toaster, kettle, pan,
    plate, jar, lantern, globe, typewriter, watch, ball, tennis racket, surfboard, skateboard, helmet, boot, shoe,
    glove, scarf, tent, hammock, swing, wagon, fountain, mailbox, street sign, traffic light, fire hydrant,
    parking meter, rug, cushion, wardrobe, bookcase, sewing machine, fan, blanket, towel, toothbrush, hairbrush, wallet,
    key, coin, pencil, notebook, calendar, bag, purse, jug, spoon, fork, shovel, rake, wheel, rope, chain, bell, trophy,
    puppet, balloon
""")
FURNITURE = _list("""
    table, desk, shelf, bench, counter, windowsill, chair, stool, dresser, nightstand, cupboard, picnic table
""")
FURNITURE_MATERIALS = _list("wooden, metal, glass, stone, plastic, marble, wicker")
# What lies on furniture, and what it is made of.
SMALL_THINGS = _list("""
    lamp, clock, vase, bottle, basket, bowl, cup, teapot, candle, pillow, hat, book, radio, telephone, camera, laptop,
    keyboard, plate, jar, lantern, globe, typewriter, watch, ball, helmet, glove, scarf, cushion, towel, toothbrush,
    hairbrush, wallet, key, coin, pencil, notebook, bag, purse, jug, spoon, fork, bell, trophy, puppet, kettle, pan,
    picture frame, flower pot, violin, trumpet, toaster, fan, blanket, box, shoe
""")
THING_MATERIALS = _list("wooden, metal, plastic, ceramic, leather, paper, stone, copper, silver, clay")
BUILDINGS = _list("""
    church, castle, house, barn, lighthouse, skyscraper, windmill, cottage, bridge, temple, tower, cabin, train station,
    bakery, bookshop, museum, hotel, factory, palace, hut, greenhouse, cathedral, farmhouse, market hall, library
""")
CLOTHES = _list("""
    coat, hat, sweater, dress, scarf, shirt, jacket, raincoat, apron, uniform, suit, vest, helmet, cap, kimono, skirt
""")
COLORS = _list("""
    red, blue, green, yellow, black, white, brown, orange, purple, pink, grey, beige, turquoise, golden, silver, cream
""")
MATERIALS = _list("""
    wooden, metal, glass, stone, plastic, leather, brick, ceramic, marble, paper, wicker, bronze, copper, steel,
    concrete, clay, cardboard, velvet
""")
PATTERNS = _list("striped, spotted, checkered, plaid, floral, plain, polka-dot, patterned, embroidered, quilted")
SHAPES = _list("round, square, oval, rectangular, triangular, heart-shaped, curved, star-shaped, tall, narrow, wide")
SIZES = _list("small, large, big, tiny, huge, little, giant, enormous, tall, short")
QUALITIES = _list("""
    old, new, shiny, rusty, dusty, broken, empty, clean, dirty, antique, modern, colorful, wet, decorated, worn, bright,
    elegant, painted, simple, vintage, ornate, polished
""")
COATS = _list("brown, black, white, grey, spotted, fluffy, furry, shaggy, young, old, small, large, sleepy, wet")
ROOMS = _list("""
    kitchen, bathroom, bedroom, living room, office, dining room, library, garage, hallway, attic, workshop, classroom,
    restaurant, cafe, hotel lobby, waiting room, laundry room, studio
""")
ROOM_QUALITIES = _list("""
    bright, small, large, cozy, modern, tidy, messy, empty, spacious, old-fashioned, dark, narrow, sunny, rustic, clean
""")
INDOORS = _list("""
    in a kitchen, in an office, in a library, in a workshop, in a living room, at a cafe, in a restaurant, at home,
    in a studio, in a bakery, in a hallway, by a window, at a desk, in a hotel room, in a museum, in a train station,
    in a hospital, in a garage, beside a fireplace, in a bedroom, in a shop
""")
OUTDOORS = _list("""
    in a park, on a beach, in the snow, in the rain, on a busy street, in a garden, on a mountain, in a field,
    by a lake, at a market, on a bridge, in the forest, in the desert, on a farm, at a train station, in a village,
    by the sea, on a pier, on a hill, in an alley, on a dirt road, in front of a church, near a river, at the harbor,
    on a sidewalk, in a parking lot, at a crossroads, on a rooftop, in a meadow, under a tree, on a city square,
    beside a canal
""")
TIMES = _list("""
    at sunset, at night, at dawn, in winter, in autumn, in spring, in summer, on a sunny day, on a cloudy day,
    on a rainy day, in the morning, in the evening, at noon, in the fog, under a blue sky, after the rain
""")
LANDSCAPES = _list("""
    mountain, river, waterfall, forest, lake, valley, beach, desert, canyon, island, meadow, glacier, volcano, swamp,
    cliff, vineyard, wheat field, coastline, cave, pond, orchard, rice terrace, snowy peak, country road, hillside
""")
LANDSCAPE_QUALITIES = _list("""
    calm, misty, rocky, green, frozen, wide, quiet, remote, sunny, steep, wild, deep, snowy, dry, lush, narrow
""")
FLOWERS = _list(
    "rose, tulip, sunflower, daisy, lily, orchid, poppy, lavender bush, cactus, fern, palm tree, oak tree, pine tree"
)
RELATIONS = _list("""
    next to, beside, in front of, behind, under, on top of, to the left of, to the right of, near, above, below, inside,
    leaning against
""")
STYLES = _list("""
    a watercolor, an oil painting, a pencil sketch, a cartoon, a black and white photograph, a charcoal drawing,
    an illustration, a pixel art picture, a woodcut, a mosaic, a vintage poster, a pastel drawing, an anime drawing,
    a collage, a 3d render, an ink drawing, a stained glass picture, an engraving
""")
STYLE_ENDINGS = _list("""
    oil painting, watercolor, black and white photograph, digital art, pencil sketch, cartoon style, anime style,
    close-up, aerial view, soft light, high contrast, impressionist style, pop art, pixel art, cubist painting
""")
OPENERS = _list("a photo of, a picture of, a photograph of, an image of, a close-up of, a view of")
MANY = _list("two, three, four, five, six, several, some, a pair of, a group of, a couple of")
# What detailed captions say besides: how many, and what is on things.
MORE_SINGLE = _list("a single, one, just one")
MORE_MANY = _list("2, 3, 4, seven, eight, a few, many, a trio of, a set of, exactly two, exactly three, exactly four")
MARKS = _list("""
    with stripes, with spots, with scratches, with stickers, with ribbons, with tassels, with cracks, with buttons,
    with flowers, with polka dots, with a floral pattern, covered in dust, covered in paint, covered in flowers
""")
REQUESTS = _list("""
    a drawing of, a sketch of, an illustration of, a painting of, a poster of, a picture showing, a photo with,
    a scene with, a cartoon of, a detailed image of, draw, show me, paint, create a picture of, I would like to see
""")
TAGS = _list("""
    highly detailed, sharp focus, natural light, high quality, bright colors, professional photo, blurred background,
    simple background, 4k, soft shadows, vivid colors, wide angle, hand-drawn, minimalist, realistic, beautiful
""")
