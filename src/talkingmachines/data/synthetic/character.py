"""Every parameter of a drawn character's look, and how looks are sampled."""

from dataclasses import dataclass

import numpy as np

from talkingmachines.data.synthetic import palettes as pal
from talkingmachines.data.synthetic.palettes import Color

STYLES = ("flat", "outlined", "shaded", "painted")
FACES = ("round", "oval", "square", "heart", "long")
HAIRS = (
    "short", "crop", "side", "quiff", "spiky", "bob", "fringe", "long", "wavy", "curly", "afro", "bun",
    "ponytail", "pigtails", "bald", "hijab", "beanie", "cap",
)  # fmt: skip
EYES = ("round", "almond", "droopy", "cat", "soft")
NOSES = ("button", "curve", "bridge", "broad", "soft")
GLASSES = ("none", "round", "square")
BEARDS = ("none", "stubble", "short", "full", "goatee", "moustache")
CLOTHES = ("tee", "vneck", "shirt", "hoodie", "turtleneck", "blazer", "overalls", "scarf")
PATTERNS = ("plain", "stripes", "dots", "yoke")
SCENES = ("plain", "gradient", "sun", "blobs", "bokeh", "window", "hills")

_FEMININE_HAIR = (
    "bob",
    "fringe",
    "long",
    "wavy",
    "curly",
    "afro",
    "bun",
    "ponytail",
    "pigtails",
    "hijab",
    "beanie",
)
_MASCULINE_HAIR = (
    "short",
    "crop",
    "side",
    "quiff",
    "spiky",
    "curly",
    "afro",
    "bald",
    "beanie",
    "cap",
    "crop",
    "side",
)


@dataclass(frozen=True)
class Character:
    """The look. Colours are (r, g, b) in 0..255; lengths are in pixels of a 256 pixel picture, ratios near 1."""

    style: str
    age: str
    face: str
    skin: Color
    blush: float
    freckles: bool
    ear_size: float
    hair: str
    hair_color: Color
    hair_volume: float
    hair_flip: bool
    eyes: str
    iris: Color
    eye_size: float
    eye_gap: float
    eye_y: float
    lashes: float
    lid_paint: float
    brow_thick: float
    brow_arch: float
    brow_tilt: float
    nose: str
    nose_size: float
    mouth_width: float
    mouth_y: float
    lip_full: float
    lip_color: Color
    lip_alpha: float
    glasses: str
    glasses_color: Color
    beard: str
    earrings: bool
    accent: Color
    clothes: str
    clothes_color: Color
    pattern: str
    scene: str
    scene_color: Color
    face_width: float
    light: float
    """-1 light from the left .. 1 from the right."""
    scene_seed: int

    def __post_init__(self) -> None:
        choices = {
            "style": STYLES, "face": FACES, "hair": HAIRS, "eyes": EYES, "nose": NOSES, "glasses": GLASSES,
            "beard": BEARDS, "clothes": CLOTHES, "pattern": PATTERNS, "scene": SCENES,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")


def sample_character(seed: int) -> Character:
    """The one source of looks: the same seed always gives the same character."""
    rng = np.random.default_rng([seed, 7])
    feminine = rng.random() < 0.5
    age = str(rng.choice(("child", "adult", "elder"), p=(0.15, 0.67, 0.18)))
    skin = _skin(rng)
    hair = str(rng.choice(_FEMININE_HAIR if feminine else _MASCULINE_HAIR))
    if age == "child" and hair == "bald":
        hair = "short"
    hair_color = _hair_color(rng, age, skin)
    scene_color, clothes_color, accent = _scheme(rng, skin, hair_color)
    bearded = not feminine and age != "child" and rng.random() < 0.45
    painted_lips = feminine and age != "child" and rng.random() < 0.6
    return Character(
        style=str(rng.choice(STYLES)),
        age=age,
        face=str(rng.choice(FACES)),
        skin=skin,
        blush=float(rng.uniform(0.25, 1.0) if feminine or age == "child" else rng.uniform(0.1, 0.6)),
        freckles=bool(rng.random() < 0.14),
        ear_size=float(rng.uniform(0.9, 1.15)),
        hair=hair,
        hair_color=hair_color,
        hair_volume=float(rng.uniform(0.0, 1.0)),
        hair_flip=bool(rng.random() < 0.5),
        eyes=str(rng.choice(EYES)),
        iris=_iris(rng, skin),
        eye_size=float(rng.uniform(0.94, 1.1) * (1.1 if age == "child" else 0.95 if age == "elder" else 1.0)),
        eye_gap=float(rng.uniform(23.5, 25.8)),
        eye_y=float(rng.uniform(2.0, 5.0) + (4.0 if age == "child" else 0.0)),
        lashes=float(rng.uniform(0.5, 1.0) if feminine else rng.uniform(0.0, 0.2)),
        lid_paint=float(rng.uniform(0.3, 0.8) if painted_lips else 0.0),
        brow_thick=float(rng.uniform(2.6, 3.8) if feminine else rng.uniform(3.8, 5.6)),
        brow_arch=float(rng.uniform(2.0, 5.0)),
        brow_tilt=float(rng.uniform(-1.5, 1.5)),
        nose=str(rng.choice(NOSES)),
        nose_size=float(rng.uniform(0.9, 1.15) * (0.82 if age == "child" else 1.0)),
        mouth_width=float(rng.uniform(18.0, 21.5) * (0.92 if age == "child" else 1.0)),
        mouth_y=float(rng.uniform(37.0, 39.5)),
        lip_full=float(rng.uniform(0.85, 1.25) if feminine else rng.uniform(0.6, 0.95)),
        lip_color=pal.LIP_PAINTS[rng.integers(len(pal.LIP_PAINTS))] if painted_lips else _bare_lips(skin),
        lip_alpha=float(rng.uniform(0.8, 0.95) if feminine else rng.uniform(0.4, 0.7)),
        glasses=str(rng.choice(GLASSES, p=(0.76, 0.14, 0.1))),
        glasses_color=((52, 44, 48), (150, 92, 52), (196, 150, 82), accent)[rng.integers(4)],
        beard=str(rng.choice(BEARDS[1:])) if bearded else "none",
        earrings=bool(rng.random() < (0.4 if feminine and age != "child" else 0.06)),
        accent=accent,
        clothes=str(rng.choice(CLOTHES)),
        clothes_color=clothes_color,
        pattern=str(rng.choice(PATTERNS, p=(0.55, 0.18, 0.12, 0.15))),
        scene=str(rng.choice(SCENES)),
        scene_color=scene_color,
        face_width=float(rng.uniform(0.97, 1.03)),
        light=-1.0 if rng.random() < 0.5 else 1.0,
        scene_seed=int(rng.integers(1 << 30)),
    )


def _jitter(rng: np.random.Generator, color: Color, amount: float = 5.0) -> Color:
    shifted = np.array(color) + rng.normal(0.0, amount) + rng.normal(0.0, amount / 2, 3)
    red, green, blue = (int(v) for v in np.clip(shifted, 8, 255))
    return red, green, blue


def _skin(rng: np.random.Generator) -> Color:
    if rng.random() < 0.05:
        return _jitter(rng, pal.FANTASY_SKINS[rng.integers(len(pal.FANTASY_SKINS))])
    place = rng.uniform(0, len(pal.SKINS) - 1)
    low, part = int(place), place % 1
    red, green, blue = (int((1 - part) * a + part * b) for a, b in zip(pal.SKINS[low], pal.SKINS[low + 1], strict=True))
    return _jitter(rng, (red, green, blue), 2.0)


def _hair_color(rng: np.random.Generator, age: str, skin: Color) -> Color:
    if age == "elder" and rng.random() < 0.8:
        choices = pal.GREY_HAIR
    elif rng.random() < 0.12:
        choices = pal.FANTASY_HAIR
    elif rng.random() < (0.25 if sum(skin) > 540 else 0.85):
        choices = pal.DARK_HAIR
    else:
        choices = pal.FAIR_HAIR
    return _jitter(rng, choices[rng.integers(len(choices))], 4.0)


def _iris(rng: np.random.Generator, skin: Color) -> Color:
    if skin[2] > skin[0]:
        choices = pal.FANTASY_IRISES
    elif rng.random() < (0.7 if sum(skin) > 540 else 0.08):
        choices = pal.LIGHT_IRISES
    else:
        choices = pal.DARK_IRISES
    return _jitter(rng, choices[rng.integers(len(choices))], 5.0)


def _bare_lips(skin: Color) -> Color:
    """The colour of unpainted lips: the skin, redder and a little darker."""
    red, green, blue = skin
    return int(red * 0.86), int(green * 0.62), int(blue * 0.64)


def _distance(one: Color, other: Color) -> float:
    return float(np.abs(np.subtract(one, other)).sum())


def _scheme(rng: np.random.Generator, skin: Color, hair: Color) -> tuple[Color, Color, Color]:
    """(background, clothes, accent) in which neither the skin nor the hair is lost against what is behind it."""

    def contrast(scheme: tuple[Color, Color, Color]) -> float:
        background, clothes, _ = scheme
        return min(_distance(background, skin), _distance(background, hair), _distance(clothes, skin))

    candidates = [pal.SCHEMES[i] for i in rng.permutation(len(pal.SCHEMES))[:6]]
    background, clothes, accent = max(candidates[:3], key=contrast)
    if contrast((background, clothes, accent)) < 80:
        background, clothes, accent = max(candidates, key=contrast)
    return _jitter(rng, background), _jitter(rng, clothes), _jitter(rng, accent)
