"""By which words English names the things that COCO boxes: its 80 categories, each with the names it goes by.

Data alone. A name that stands under several categories (`bike`) is any of them.
"""

from __future__ import annotations

_NAMES = """
person: person, people, man, woman, boy, girl, child, kid, baby, toddler, lady, guy, gentleman, pedestrian
bicycle: bicycle, bike, cyclist
car: car, sedan, taxi, cab, suv, van, minivan, jeep, convertible, hatchback, automobile, station wagon
motorcycle: motorcycle, motorbike, bike, scooter, moped
airplane: airplane, plane, aeroplane, jet, airliner, aircraft, jetliner, biplane
bus: bus, minibus, double-decker, school bus, trolleybus, trolley bus
train: train, locomotive, tram, subway train, streetcar, trolley car
truck: truck, lorry, pickup, pickup truck, pick-up truck, fire truck, firetruck, semi-truck, van, suv, jeep
boat: boat, ship, sailboat, canoe, kayak, ferry, yacht, rowboat, raft, gondola, speedboat, motorboat
traffic light: traffic light, traffic signal, stoplight, stop light
fire hydrant: fire hydrant, hydrant
stop sign: stop sign
parking meter: parking meter
bench: bench, park bench
bird: bird, pigeon, seagull, gull, duck, goose, swan, parrot, owl, eagle, hawk, sparrow, crow, penguin, flamingo, heron
cat: cat, kitten, kitty, tabby
dog: dog, puppy, pup, husky, poodle, beagle, labrador, retriever, terrier, bulldog, dachshund, sheepdog, corgi
horse: horse, pony, foal, stallion, mare
sheep: sheep, lamb, ram, ewe
cow: cow, cattle, calf, bull, ox
elephant: elephant
bear: bear, polar bear, grizzly
zebra: zebra
giraffe: giraffe
backpack: backpack, rucksack, knapsack, book bag
umbrella: umbrella, parasol
handbag: handbag, purse, tote bag, shoulder bag
tie: necktie, bow tie, tie
suitcase: suitcase, briefcase, luggage, baggage
frisbee: frisbee, flying disc
skis: ski, skis
snowboard: snowboard, snowboarder
sports ball: soccer ball, tennis ball, basketball, volleyball, football, ball, baseball, beach ball
kite: kite
baseball bat: baseball bat
baseball glove: baseball glove, baseball mitt, catcher's mitt
skateboard: skateboard, skateboarder
surfboard: surfboard, surf board
tennis racket: tennis racket, racket, racquet, tennis racquet
bottle: bottle, wine bottle, water bottle
wine glass: wine glass, wineglass, goblet
cup: cup, mug, teacup, coffee cup, glass of water, glass of milk, glass of juice
fork: fork
knife: knife, butter knife
spoon: spoon, ladle, teaspoon
bowl: bowl
banana: banana
apple: apple
sandwich: sandwich, burger, hamburger, cheeseburger
orange: tangerine, clementine, mandarin
broccoli: broccoli
carrot: carrot
hot dog: hot dog, hotdog
pizza: pizza
donut: donut, doughnut
cake: cake, cupcake, cheesecake
chair: chair, armchair, stool, recliner, rocking chair
couch: couch, sofa, loveseat, love seat
potted plant: potted plant, houseplant, house plant
bed: bed, bunk bed
dining table: dining table, table, coffee table, picnic table, desk
toilet: toilet, urinal
tv: tv, television, television set, tv set, monitor, flat screen
laptop: laptop, laptop computer, notebook computer
mouse: mouse, computer mouse
remote: remote control, tv remote, game controller, wii remote, wiimote
keyboard: keyboard
cell phone: cell phone, cellphone, mobile phone, smartphone, phone, iphone, smart phone
microwave: microwave, microwave oven
oven: oven, stove
toaster: toaster, toaster oven
sink: sink, washbasin, wash basin
refrigerator: refrigerator, fridge
book: book, textbook
clock: clock, clock tower
vase: vase
scissors: scissors
teddy bear: teddy bear, teddy, stuffed bear
hair drier: hair drier, hair dryer, hairdryer, blow dryer
toothbrush: toothbrush, tooth brush
"""

NAMES: dict[str, tuple[str, ...]] = {
    category: tuple(name.strip() for name in names.split(","))
    for category, names in (line.split(":") for line in _NAMES.strip().splitlines())
}
"""Category to its names in the singular."""

_LOOSE = """
luggage, baggage, bag, bags, luggage cart: suitcase, backpack, handbag
dishes, dish, silverware, cutlery, utensils, eating utensils, place setting, tableware, meal, dinner, restaurant,
    breakfast, lunch: fork, knife, spoon, bowl, cup, wine glass, bottle, dining table, chair
glass, glasses, drink, drinks, beverage, wine, coffee, tea, juice, beer: cup, wine glass, bottle
fruit, fruits: apple, banana, orange
vegetables, veggies, salad: broccoli, carrot
vehicles, traffic, vehicle: car, truck, bus, motorcycle
parking lot: car
computer, computers, workstation, office: laptop, tv, keyboard, mouse, dining table, chair
screen, screens, display: tv, laptop, cell phone
phone: cell phone
animals, herd: cow, sheep, horse, zebra, elephant, giraffe
kitchen: oven, sink, refrigerator, microwave, dining table
bathroom, restroom: toilet, sink
bedroom, hotel room: bed
living room: couch, chair, tv
tennis, tennis player, tennis match: tennis racket, sports ball
baseball, batter, pitcher, baseball player, baseball game, umpire: baseball bat, baseball glove, sports ball
soccer: sports ball
skier, skiers, skiing, ski slope: skis
snowboarder, snowboarding: snowboard
surfer, surfers, surfing: surfboard
skateboarder, skateboarding, skate: skateboard
biker, bikers, rider, riders, biking: bicycle, motorcycle
cyclist, cyclists, bicyclist: bicycle
plant, plants, flowers, bouquet, flower: potted plant, vase
seat, seats, seating, furniture: chair, couch, bench
counter, countertop: dining table, sink, oven
electronics, controller, wii, video game, remote: remote, tv
game: remote, sports ball
airport, runway, flight: airplane
railroad, railway, train station, train tracks: train
trolley, trolleys: train, bus
harbor, harbour, marina, dock: boat
library, bookshelf, bookcase, shelves, reading: book
stuffed animal, stuffed animals: teddy bear
teeth: toothbrush
pastry, pastries, dessert: donut, cake
"""

LOOSE: dict[str, frozenset[str]] = {
    name.strip(): frozenset(one.strip() for one in categories.split(","))
    for names, categories in (line.split(":") for line in _LOOSE.strip().replace(",\n   ", ",").splitlines())
    for name in names.split(",")
}
"""Words of a caption that are no category's name and yet make these categories no invention."""

KIN: tuple[frozenset[str], ...] = (
    frozenset({"couch", "chair", "bench"}),
    frozenset({"cup", "wine glass", "bowl", "bottle"}),
    frozenset({"car", "truck"}),
    frozenset({"handbag", "backpack", "suitcase"}),
    frozenset({"tv", "laptop", "keyboard", "mouse"}),
    frozenset({"oven", "microwave", "toaster"}),
    frozenset({"cake", "donut", "sandwich"}),
    frozenset({"fork", "knife", "spoon"}),
    frozenset({"bed", "couch"}),
    frozenset({"bicycle", "motorcycle"}),
)
"""Categories that people take for each other: a box of one makes the other no invention."""

NOTHING = (
    *(
        "bird's eye",
        "bird's-eye",
        "bear in mind",
        "couch potato",
        "world cup",
        "bus stop",
        "dog days",
        "cat nap",
    ),
    *("train station", "car park", "hot dog stand", "cell phone tower", "table of contents", "horse riding"),
    *("orange juice", "apple juice", "dog bed", "cat bed", "pet bed", "flower bed", "river bed", "truck bed"),
    *(
        "bed of flowers",
        "kick ball",
        "ball gown",
        "mouse pad",
        "clock face",
        "computer chair",
        "table tennis",
    ),
    *("baby elephant", "baby giraffe", "baby bear", "baby zebra", "baby cow", "baby sheep", "sheep dog"),
    *("couch cushion", "chair lift", "cup holder", "plane crash", "fork in the road", "knife edge"),
    *(
        "booking",
        "tie up",
        "ties up",
        "ties together",
        "tie together",
        "to bear",
        "to book",
        "to train",
        "to ship",
    ),
)
"""Phrases in which such a name names no such thing."""
