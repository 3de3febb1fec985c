"""Animals, food, things and terms of years, whose ages are no ages of people: parts of the harmless phrases.

No word here is also what people do: a "12 year old watches" is a person, and so there are watch and drive, but no
watches and drives.
"""

from __future__ import annotations

from .minor_words import listed

OLD_ANIMALS = listed(
    r"""
    elephants? giraffes? zebras? goats? sheep cows? calf calves horses? foals? ponies pony donkeys? deer pandas? lions?
    lioness(?:es)? tigers? leopards? cheetahs? monkeys? apes? gorillas? chimps? chimpanzees? orangutans? ducks?
    ducklings? chickens? geese goose swans? owls? eagles? hawks? falcons? gulls? seagulls? penguins? parrots? sparrows?
    flamingos? turtles? tortoises? alligators? crocodiles? lizards? snakes? iguanas? frogs? dragons? dinosaurs? fish
    salmon trouts? sharks? whales? dolphins? walrus octopus squids? dogs? pupp(?:y|ies) hounds? hares? squirrels?
    tapirs? crabs? lobsters? hyenas? meerkats? lemurs? mice mouse rats? hamsters? hedgehogs? raccoons? skunks? badgers?
    pigs? piglets? boars? hippos? hippopotamus rhinos? rhinoceros camels? llamas? alpacas? wombats? armadillos?
    anteaters? aardvarks? ostrich(?:es)? emus? rheas? peacocks? peafowls? toucans? macaws? geckos? salamanders? newts?
    chameleons? axolotls? jellyfish starfish stingrays? rays? seahorses? manatees? belugas? narwhals? orcas?
    sea+(?:lions?|otters?|cows?|snakes?|turtles?|birds?) opossums? possums? mongooses? beavers? moles? gophers?
    chipmunks? marmots? groundhogs? porcupines? platypus(?:es)? echidnas? wallab(?:y|ies) quokkas? baboons? macaques?
    marmosets? tamarins? gibbons? bonobos? lynx(?:es)? bobcats? cougars? pumas? jaguars? panthers? ocelots? jackals?
    coyotes? dingos? dingoes warthogs? wildebeests? gnus? impalas? oryx ibex reindeers? caribous? okapis? mules? ox oxen
    heifers? bullocks? ferrets? weasels? stoats? minks? martens? guinea+pigs? chinchillas? gerbils? cobras? pythons?
    vipers? boas? spiders? tarantulas? scorpions? bees? butterfl(?:y|ies) ants? beetles? crows? ravens? pigeons? doves?
    magpies? herons? egrets? storks? cranes? pelicans? puffins? albatross(?:es)? kingfishers? woodpeckers? hummingbirds?
    turkeys? quails? pheasants? partridges? vultures? condors? kites? osprey kestrels? cockatoos? cockatiels? budgies?
    canar(?:y|ies) finch(?:es)? tuna cod mackerel herrings? sturgeon carps? eels? pikes? perch bass tilapia octopuses
    clams? shrimps? prawns? mussels? oysters? snails? corals? cuttlefish scallops? t-rex triceratops velociraptors?
    griffins? gryphons? phoenix(?:es)? unicorns? pegasus dachshunds? beagles? corgis? pugs? bulldogs? huskies husky
    mastiffs? greyhounds? whippets? chihuahuas? heron-?like rodents? reptiles? amphibians? insects? mammals? primates?
    bovines? felines? canines? livestock goslings? cygnets? hatchlings? nestlings? tadpoles? spiderlings? leverets?
    owlets? eaglets? colts? fill(?:y|ies) pups? caterpillars? chrysalis larvae? pinnipeds? walruses kangaroos? koalas?
    sloths? bats? moose elks? bison buffalos? yaks? antelopes? gazelles? mares? stallions? bulls? terriers? retrievers?
    labradors? poodles? collies? spaniels? shepherds? sheepdogs? racehorses? geldings? yearlings? tabb(?:y|ies)
    thoroughbreds? tomcats? great+danes? maine+coons? pinschers? rottweilers? dalmatians? setters? pointers? wolfhounds?
    wethers? cats? whelps? cockerels? roosters? hens? pullets? ewes? rams? sows? porpoises?
    """
)
# Animals whose names people have too: a young one is certainly an animal, one with an age is not.
ANIMALS = "|".join(
    (
        OLD_ANIMALS,
        listed(
            "lambs? fawns? bears? birds? chicks? robins? seals? otters? kittens? fox(?:es)? wol(?:f|ves) rabbits? "
            "bunn(?:y|ies) animals?"
        ),
    )
)
FOODS = listed(
    r"""
    whisk(?:e?y|eys|ies) scotch bourbon rum brandy cognac wines? port tequila malt single+malt cheddar gouda steaks?
    beef rib-?eyes? sirloins? brisket meats? venison mutton pork prosciutto salami salumi chorizo pancetta bresaola
    jamon sausages? bacon sakes? soy+sauce miso kimchi eggs? sourdough(?:+starters?)? teas? pu-?erh gin beers? ales?
    stouts? lagers? ciders? mead champagnes? calvados armagnac grappa mezcals? spirits? liqueurs? sherr(?:y|ies) madeira
    moonshine pickles? sauces? yoghurts? yogurts? butter cakes? milk coffee tofu rice noodles? soups? stews? vermouth
    absinthe merlot cabernet bordeaux burgundy riesling chardonnay pinot+noir tobacco cigars? garlic kombucha dough
    pastry croissants? bagels? sandwich(?:es)? fruitcakes? brie camembert manchego stilton roquefort pecorinos? cheeses?
    oloroso parmesan parmigiano balsamic vinegar ham bread loa(?:f|ves) pizza leftovers comte emmental gruyeres? asiago
    feta burgundies tawny barolo rioja malbec shiraz syrah lagavulin laphroaig macallan glenfiddich glenlivet talisker
    ardbeg highland+park yamazaki hibiki armagnacs kefir
    """
)
THINGS = listed(
    r"""
    cars? trucks? bus(?:es)? bikes? bicycles? motorcycles? boats? ships? trains? planes? cameras? laptops? computers?
    machines? engines? guitars? pianos? violins? bottles? newspapers? buildings? houses? barns? bridges? trams?
    tractors? vans? lorr(?:y|ies) ambulances? yachts? ferr(?:y|ies) jets? aircraft airplanes? airliners? helicopters?
    rockets? satellites? telescopes? scooters? motorbikes? sedans? suvs? hatchbacks? vehicles? wagons? phone
    smartphones? iphones? tablets? tvs? televisions? software codebases? code apps? websites? sites? fridges?
    refrigerators? ovens? stoves? microwaves? dishwashers? washing+machines? boilers? printers? watch clocks? shoes?
    boots? sneakers? jeans? carpets? rugs? coin stamp paintings? manuscripts? map document compan(?:y|ies) firms?
    start-?ups? business(?:es)? brands? corporations? enterprises? organi[sz]ations? charit(?:y|ies) institutions?
    agenc(?:y|ies) universit(?:y|ies) restaurants? baker(?:y|ies) brewer(?:y|ies) distiller(?:y|ies) winer(?:y|ies)
    museums? galler(?:y|ies) hotels? hospitals? librar(?:y|ies) factor(?:y|ies) festivals? traditions? laws?
    treat(?:y|ies) wars? conflicts? disputes? feuds? debts? marriages? relationships? partnerships? careers? lawsuits?
    case record magazines? mosques? temples? shrines? palaces? forts? fortress(?:es)? wall ruins? tombs? fossils? rock
    stone meteorites? planets? galax(?:y|ies) sun moon glaciers? volcano(?:es|s)? lawns? hedges? vines? vineyards?
    orchards? rose+bush(?:es)? bush(?:es)? cactus cacti plant seedlings? saplings? shrubs? roofs? furniture
    batter(?:y|ies) tyres? tires? rope stubble stubbles beards? news snow bruise wound scar bouquets? flowers? roses?
    tulips? bananas? apples? estates? cottages? mansions? skyscrapers? stadiums? malls? elevators? pipelines? dams?
    reactors? windmills? lighthouses? statues? monuments? fountains? republics? nations? countr(?:y|ies) state
    cit(?:y|ies) towns? villages? park zoos? club franchises? podcasts? platforms? program programme projects? policies
    policy contracts? hard+drives? hard+disks? routers? cafes? shop store sofas? processors? gpus? consoles?
    church(?:es)? castles? towers? trees? oaks? pines? firs? maples? willows? elms? cedars? redwoods? olive+trees?
    ginkgos? wisterias? bamboos? forests? orchids? bonsais? lilacs? junipers? groves? turbines? tankers? freighters?
    trawlers? dingh(?:y|ies) canoe kayak carriages? locomotives? tractor-?trailers? rvs? caravans? campervans? taxis?
    cabs? mopeds? pickups? coupes? minivans? limousines? jeeps? toyotas? hondas? ford bmws? audis? volvos? volkswagens?
    vws? porsches? ferraris? mercedes fiats? renaults? harleys? harley-davidsons? bulldozers? excavators? cookbooks?
    passport loans? ipads? campers? cleaner trampolines? beehives? subarus? mazdas? nissans? teslas? chevys? chevrolets?
    hyundais? pcs? macs? macbooks? keyboards? monitor headphones radio turntables? pan skillet kettles? toasters? lamps?
    chandeliers? mattress(?:es)? armchairs? couch(?:es)? chair desks? table bookcases? jacket coat sweater handbags?
    briefcases? backpacks? suitcases? wallets? umbrellas? tents? knives knife axe lathes? generators? panels? fence
    gates? bells? organs? harps? cellos? trumpet drum bookshops? bookstores? pubs? taverns? cinemas? quarries canals?
    tunnel piers? airports? stations? carriers? warships? submarines? murals? mosaics? frescoe?s? tapestr(?:y|ies)
    sculptures? globes? quilts? scarecrows? snowmobiles? trailers? greenhouses? sheds? cabins? huts?
    """
)
# What stands between an age and a thing or an animal: no word for people, and none for what they do.
_KINDS = listed(
    r"""
    islay speyside kentucky tennessee aged barrel hard guard rescue stray thoroughbred red blue green black white brown
    grey gray old used rusty oak scotch irish highland single fine japanese german italian french spanish british
    american wooden stone brick broken vintage local family software tech male female big small pet yellow orange purple
    pink silver gold(?:en)? copper brass bronze iron cast-iron steel metal glass ceramic porcelain clay marble granite
    concrete plastic rubber leather suede denim canvas wool(?:len)? cotton silk linen velvet paper pine cedar mahogany
    teak walnut bamboo diesel electric hybrid petrol gas oil solar nuclear hydraulic wind water steam pickup sports
    racing race fire delivery dump garbage cargo container cruise fishing sailing touring mountain road dirt city school
    washing sewing gaming desktop office kitchen garden winter summer running walking hiking climbing dining coffee
    acoustic bass grand upright grandfather digital analog(?:ue)? mechanical wrist rocking giant huge large tiny little
    ancient restored rusted battered abandoned derelict worn faded dusty cracked framed dried smoked cured blended
    border bernese siberian australian labrador cocker springer yorkshire jack russell persian siamese bengal maine coon
    burmese tabby ginger calico tortoiseshell shetland clydesdale arabian friesian welsh holstein angus jersey african
    asian indian amur sumatran polar grizzly panda snow great humpback nile komodo galapagos herring bald barn snowy
    barred tawny wild feral farm domestic captive sea tomato apple pear cherry plum peach lemon fig olive palm rose
    lilac maple birch beech elm juniper apricot almond pecan grape cactus sperm killer blind retired church bank dell
    nikon canon sony samsung lenovo bosch gibson yamaha fender metro railway vacuum red-tailed king emperor peregrine
    """
)
BETWEEN = f"(?:(?:{_KINDS})+){{0,3}}"
# Young animals whose names people have too. Only an age in weeks or months makes them animals.
YOUNG = listed(
    r"""
    kittens? bunn(?:y|ies) chicks? lambs? fawns? cubs? bears? birds? rabbits? seals? otters? fox(?:es)? wol(?:f|ves)
    """
)
# What lasts some years.
TERMS = listed(
    r"""
    warrant(?:y|ies) guarantees? (?:treasury+)?bonds? treasur(?:y|ies) plans? contracts? sentences? terms? reigns?
    droughts? sieges? forecasts? cycles? gaps? stud(?:y|ies) journeys? voyages? careers? marriages? loans? deals?
    anniversar(?:y|ies) wars? absences? experience tenures? lease mortgages? reunion jubilees? history friendship
    relationship itch
    """
)
# Animals, drinks, food and things, and what lasts some years, in five other languages, without accents.
FOREIGN_THINGS = listed(
    r"""
    puentes? ponte pont(?:s|i)? brucken? baume? relo(?:j|gio) orologio? montres? uhr(?:en)? libros? livr[eo]s? bucher?
    mesas? tische? tavolo sillas? chaises? stuhle? iglesias? eglises? kirchen? chiese? igrejas? torres? tours? turme?
    tren(?:es)? trains? zuge? treno avion(?:es|s)? flugzeuge? aere[oi] camion(?:es|s)? fahrrad velos? bicicletas? bici
    robles? chenes? eichen? querc[ei]a? olivos? oliviers? ulivi? vignes? vinas? reben? fichten? linden? tannen?
    parmigiano pecorino manchego comte gouda bergkase tortues? schildkroten? tartarug[ah]e? papagei(?:en)? perroquets?
    stuten? wallache? fohlen ponys? jument yeguas? giumente? anes? esel asin[oi] burros? schafe? kuhe? vaches?
    mucc[ah]e? fiat seat renault peugeot citroen volkswagen toyota opel mercedes bmw teppiche? sofas? mobel gebaude
    hauser mauern? perr[oa]s? gat[oa]s? caball[oe]s? cachorr[oa]s? caes cao cavalos? chiens? chats? cheva(?:l|ux)
    can[ei] gatt[oai] cavall[oi] hunde? katzen? kater pferde? vinos? vinhos? vins? vini weine? ron rum rhum
    whisk(?:e?y|ys) uisques? cognac brandy queijos? quesos? fromages? formagg(?:io|i) kase oporto porto coches? carros?
    voitures? auto macchin[ae] wagen casas? maisons? haus(?:es)? edificios? arbol(?:es)? arbres? alber[oi] arvores?
    vinagre balsamico aceto jamon jambon empresas? entreprises? firmas? aziend[ae] unternehmen tortugas?
    ordenador(?:es)? computer telefone?s? motos? schiff bateaux? barcos? toros? vacas? elefantes?
    """
)
FOREIGN_TERMS = listed(
    r"""
    garanti[aeo]s? garanzia carreira carrera carriera carriere casad[oa]s casamento matrimonio mariage experiencias?
    esperienza experience historia storia histoire guerra guerre prision prison prisao prigione carcel carcere contrato
    contratto contrat bail bodas trabajo trabalho lavoro travail amistad amizade amicizia amitie aniversario
    anniversario anniversaire+de+mariage jubilaum erfahrung haft ehe krieg vertrag servicio servico servizio service
    exilio exil esilio
    """
)
