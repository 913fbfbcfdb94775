"""What the pocket base can draw: icon names of the emoji sets and the short names used in captions."""

from __future__ import annotations

from dataclasses import dataclass

# group -> words; `icon` alone is its own caption, `icon:caption with_underscores` renames it.
_GROUPS: dict[str, str] = {
    "face": "skull ghost alien robot clown-face:clown grinning-face:grin smiling-face-with-sunglasses:cool_face pile-of-poo:poo",
    "body": """red-heart:heart broken-heart:broken_heart kiss-mark:lips raised-hand:hand thumbs-up:thumb foot ear nose
        brain tooth bone eye""",
    "mammal": """gorilla dog-face:dog fox cat-face:cat lion tiger-face:tiger horse-face:horse unicorn zebra deer
        cow-face:cow pig-face:pig camel giraffe elephant mouse-face:mouse rabbit-face:rabbit hedgehog bat bear
        koala panda""",
    "bird": "rooster baby-chick:chick penguin duck owl flamingo peacock parrot",
    "reptile": "frog crocodile turtle snake dragon sauropod:dinosaur t-rex",
    "sea": "spouting-whale:whale dolphin fish shark octopus spiral-shell:shell crab lobster jellyfish",
    "insect": "snail butterfly ant honeybee:bee lady-beetle:ladybug spider",
    "plant": """rose sunflower tulip potted-plant:houseplant deciduous-tree:tree palm-tree:palm cactus
        maple-leaf:leaf mushroom""",
    "fruit": """grapes watermelon tangerine:orange lemon banana pineapple red-apple:apple pear peach
        cherries:cherry strawberry tomato""",
    "vegetable": "avocado eggplant carrot ear-of-corn:corn hot-pepper:chili broccoli",
    "food": """bread croissant pretzel cheese-wedge:cheese poultry-leg:drumstick hamburger:burger
        french-fries:fries pizza hot-dog:hot_dog popcorn sushi soft-ice-cream:ice_cream doughnut:donut cookie
        birthday-cake:cake cupcake lollipop""",
    "drink": "glass-of-milk:milk hot-beverage:coffee teapot wine-glass:wine cocktail-glass:cocktail beer-mug:beer",
    "place": """globe-showing-americas:globe snow-capped-mountain:mountain volcano house castle church
        tokyo-tower:tower tent fountain ferris-wheel:ferris_wheel""",
    "vehicle": """locomotive:train oncoming-bus:bus ambulance taxi automobile:car delivery-truck:truck tractor
        motorcycle bicycle skateboard vertical-traffic-light:traffic_light anchor sailboat airplane helicopter
        rocket flying-saucer:ufo""",
    "sky": """crescent-moon:moon sun ringed-planet:planet star cloud rainbow umbrella high-voltage:lightning
        snowflake snowman fire droplet tornado""",
    "party": """jack-o-lantern:pumpkin christmas-tree:christmas_tree balloon wrapped-gift:gift trophy
        sports-medal:medal""",
    "game": """soccer-ball:football baseball basketball tennis boxing-glove:boxing_glove bullseye:target kite
        video-game:gamepad game-die:dice puzzle-piece:puzzle teddy-bear:teddy artist-palette:palette""",
    "clothes": """glasses sunglasses necktie:tie t-shirt:shirt jeans gloves dress backpack running-shoe:sneaker
        hiking-boot:boot high-heeled-shoe:high_heel crown top-hat:top_hat graduation-cap:graduation_cap
        lipstick ring gem-stone:gem""",
    "music": "bell microphone headphone saxophone guitar musical-keyboard:piano trumpet violin drum",
    "device": """telephone mobile-phone:phone battery laptop television camera
        magnifying-glass-tilted-left:magnifier candle light-bulb:light_bulb red-paper-lantern:lantern watch
        alarm-clock:alarm_clock hourglass-done:hourglass""",
    "office": """open-book:book scroll money-bag:money_bag envelope package:parcel pencil paintbrush paperclip
        triangular-ruler:ruler scissors""",
    "tool": "locked:padlock key hammer axe dagger bomb shield wrench gear magnet ladder",
    "science": "test-tube:test_tube microscope syringe",
    "home": """door bed chair toilet broom bucket toothbrush shopping-cart:shopping_cart headstone:gravestone""",
}


@dataclass(frozen=True)
class Concept:
    """One thing: the name used in captions, its icon name in the sets, and the group it belongs to."""

    name: str
    icon: str
    group: str


def all_concepts() -> list[Concept]:
    """Every concept, in the fixed order that gives each one its number."""
    concepts = []
    for group, words in _GROUPS.items():
        for word in words.split():
            icon, _, name = word.partition(":")
            concepts.append(Concept((name or icon).replace("_", " "), icon, group))
    return concepts
