"""What the voices say: everyday talk, from lists and from a small grammar.

A sentence belongs to the held-out split when its checksum says so, hence the two splits share none.
"""

import zlib

import numpy as np


def _listed(text: str) -> list[str]:
    return text.strip().replace("|", "\n").splitlines()


_NAMES = _listed("""
Anna|Bob|Peter|Maria|Paul|Emma|Martin|Betty|Sam|Julia|Oliver|Pam|Thomas|Hugo|Vera|Abby|Felix|Mia
Barbara|Philip|Joe|Wendy|Ruth|George|Charlotte|Ibrahim|Mei|Zoe|Kofi|Priya""")
_PEOPLE = _listed("""
my mother|my father|my brother|the baby|our neighbour|the teacher|a good friend|the whole family
the bus driver|my boss|the people upstairs|the children|your uncle|a young woman|the old man|my best friend
the plumber|a famous painter|the doctor|everybody|somebody""")
_THINGS = _listed("""
a map|the piano|a big umbrella|some apple pie|the blue bottle|a cup of coffee|the morning paper
a pair of boots|this photograph|the front door|a small boat|the yellow lamp|a bowl of soup|the best seat
a purple balloon|the old camera|a heavy box|my phone|the garden chair|a warm blanket|the shopping bag
two tickets|a loaf of bread|the washing machine|a handful of berries|the bathroom mirror|five oranges
a jar of honey|the wooden spoon|that funny picture|a piece of cheese|the television|a letter|the keys
my favourite book|a number of problems|the company's website|the whole programme""")
_PLACES = _listed("""
at home|in the park|by the river|in the kitchen|near the bridge|at the airport|in Boston|on the beach
behind the museum|at the market|in the middle of the room|upstairs|under the table|across the street
in a little village|at the bus stop|at my grandmother's place|on the balcony|in the north of France
outside the office|over there|in the mountains""")
_TIMES = _listed("""
today|tomorrow|last week|in the morning|before breakfast|after lunch|on Monday|in September|every day
at half past five|during the summer|right now|the day after tomorrow|once a month|two years ago|tonight
at about four o'clock|on my birthday|in a few minutes|for the first time""")
_PAST = _listed("""
bought|lost|found|brought me|forgot|painted|broke|wanted|moved|borrowed|opened|showed us|dropped
picked up|cleaned|ate|made|kept|hid|sold|remembered|fixed|washed|liked|put down|gave me|looked for|built""")
_PRESENT = _listed("need|want|love|have|see|like|hate|remember|keep|bring|own|prefer|miss|watch|buy|use|make")
_ADJECTIVES = _listed("""
beautiful|wonderful|impossible|simple|empty|warm|awful|pretty|busy|amazing|terrible|bright|cheap
expensive|familiar|funny|gentle|huge|important|lovely|noisy|perfect|quiet|rough|smooth|strange|thick|tiny|ugly
useful|valuable|weird|yellow|young|zany|comfortable""")
_OPENERS = _listed("""
Well|Oh|Yes|No|Okay|Hmm|You know|I mean|To be honest|By the way|Maybe|Actually|Of course|Listen
Please|Sorry|Perhaps|As far as I know|In my opinion|First of all|Believe me|For example""")

_FIXED = _listed("""
Hello, how are you today?
Good morning, and welcome.
My name is Bob, and this is my brother Ben.
Nice to meet you.
Thank you very much for your help.
I beg your pardon, could you repeat that?
What would you like to talk about?
Let me think about it for a moment.
That's a very good question.
I'm not sure that I understand what you mean.
Mama and papa bought a puppy.
Peter Piper picked a peck of pickled peppers.
Big brown bears baked blueberry bread.
Bobby's mum makes the best pumpkin pie.
Pop the bubble, please.
Maybe my baby blew a bubble.
Please pass me the pepper and the butter.
Pam promised to pick me up by bus.
Remember to keep the map in the blue bag.
My mum remembers Mumbai pretty well.
Paper, pen, pencil, and a book.
Apple, banana, plum, and peach.
Bye bye, baby.
Mm, I see.
Hmm, maybe.
Yes, absolutely.
No, not at all.
Oh wow, that's amazing!
Okay, let's begin.
Just a moment, please.
Can you hear me now?
Could you speak up a little?
I can see you, but I can't hear you.
One, two, three, four, five.
Six, seven, eight, nine, ten.
Eleven, twelve, thirteen, twenty, a hundred.
Monday, Tuesday, Wednesday, Thursday, Friday.
January, February, March, and April.
The weather is lovely today, isn't it?
It looks like it might rain this afternoon.
She sells sea shells by the sea shore.
How much wood would a woodchuck chuck?
The quick brown fox jumps over the lazy dog.
Should we choose the usual shoes?
Who threw those three things through the window?
The thief thought of his mother and father.
Five fine fresh fish for you.
Every evening Vivian very often visits a village.
We were away a year ago.
You knew the new tune too.
I owe you an awful lot of money.
Are our hours over?
All I need is a warm coat and a hat.
The cat sat back and had a nap.
Joy and Roy enjoy the noisy boys.
Now the brown cow is out of the house.
My eyes are wide open at night.
He may take eight days to play the game.
Go home slowly on the old road.
Look, a good cook took the wood.
Bird, nurse, word, and earth.
Let's eat the green beans and the peas.
This is his sister's little kitchen.
Ten men went to get the red bed.
My cup of coffee is much too hot.
Lots of shops and not a lot of socks.
Law, saw, and before the war.
Around about a hundred and eleven.
Yellow lilies grow along the lonely lane.
Ring the long, strong king's gong.
Measure the treasure with pleasure.
Judge George enjoyed the orange juice.
Church bells chimed and children cheered.
Where is the nearest train station?
How long does it take to get there?
I would like a table for two, please.
Do you have any plans for the weekend?
We could go to the cinema, or just stay at home.
I have been waiting here for more than an hour.
It doesn't matter, there is plenty of time.
Congratulations, I am so happy for you!
I'm sorry to hear that.
Don't worry, everything will be fine.
What do you think about it?
I think it's a great idea.
That's what I said, but nobody believed me.
Are you kidding me?
Tell me more about your family.
I grew up in a small town by the sea.
When I was young, I wanted to become a pilot.
My computer stopped working again.
The problem is that we have no power.
It's probably the battery, or a broken cable.
Please open the window, it's warm in here.
Close the door when you leave, would you?
The plane lands at twenty to seven.
Turn left at the corner, then go straight on.
I'm looking for a present for my mother.
How about a book, or some flowers?
It was the best movie I have ever seen.
The music was far too loud for me.
Happy birthday to you!
See you tomorrow, take care.
Good night, sleep well.
Goodbye, and thanks for everything.
Could we meet a bit earlier, maybe at half past three?
I'll be there in about fifteen minutes.
The museum is closed on Mondays.
Put the milk back in the fridge.
Would you mind helping me with this box?
Not really, I prefer tea.
There's a new bakery around the corner.
They make the most wonderful bread.
How was your trip to Portugal?
The people were friendly and the food was superb.
I'm trying to learn a little Spanish.
Practice a bit every day, and it becomes simple.
What's the matter?
Nothing, I'm just a bit tired.
Let me show you something.
Watch this!
Wait, what?
Absolutely impossible.
Simple people, simple problems.
Stop it, please.
Come back here at once.
Up and up and up we went.
I hope so.
Maybe not.
Number one problem: money.
Mum, I'm home!
Bombs, bumps and lamps.
Pump up the tyre and climb the mountain.
The ship went to the bottom of the bay.
A pink pumpkin and a purple plum.
Above the bridge, beneath the beam.
Robert plays football with Phoebe.
Submarines dive below the surface.
Members of the club met at the pub.""")

_FOREIGN = {
    "es": """Buenos días, ¿cómo está usted?|Me llamo Pablo y vivo en Barcelona.|Mi mamá prepara una buena paella.
¿Qué hora es, por favor?|Mañana vamos a la playa con los primos.|No me importa, hay mucho tiempo.
El pobre perro bebe poca agua.|Muchas gracias por su ayuda.|Hablamos más tarde, adiós.
Tengo un problema con el móvil.
La paloma blanca vuela por encima del puente.|Siempre compro pan y fruta en el mercado.""",
    "fr": """Bonjour, comment allez-vous ?|Je m'appelle Pauline, et j'habite à Bordeaux.
Maman prépare un bon potage.
Il fait beau aujourd'hui, n'est-ce pas ?|Nous allons au bord de la mer demain.|Je ne comprends pas ce problème.
Papa a mis la pomme dans la poche.|Merci beaucoup pour votre aide.|On peut se parler un peu plus tard.
Le bébé a un beau ballon bleu.|Où est la gare, s'il vous plaît ?|Peut-être, mais je ne suis pas sûre.""",
    "it": """Buongiorno, come sta?|Mi chiamo Beppe e abito a Palermo.|La mamma prepara la pasta con i pomodori.
Che tempo fa oggi?|Domani andiamo al mare con gli amici.|Non capisco bene questo problema.
Il bambino beve un bicchiere d'acqua.|Grazie mille per il suo aiuto.|Ci vediamo più tardi, ciao.
Piove sempre di più, prendi l'ombrello.|Dove abita il professore?|Un momento, per piacere.""",
    "de": """Guten Morgen, wie geht es Ihnen?|Mein Name ist Paul, und ich komme aus Bremen.
Mama backt einen Apfelkuchen.
Wie spät ist es, bitte?|Morgen fahren wir mit dem Bus an den Bodensee.|Ich verstehe das Problem leider nicht.
Papa kauft eine Bluse und ein paar Bücher.|Vielen Dank für Ihre Hilfe.|Wir sprechen später noch einmal, tschüss.
Das Baby möchte ein bisschen Brei.|Wo ist der Bahnhof?|Vielleicht, aber ich bin mir nicht sicher.""",
}


def sentence(seed: int, split: str) -> str:
    """An English sentence or two of the split ("train" or "heldout"), the same for the same seed."""
    rng = np.random.default_rng([seed, 17])
    while True:
        text = _FIXED[rng.integers(len(_FIXED))] if rng.random() < 0.35 else _compose(rng)
        if _split_of(text) == split:
            return text


def foreign_sentence(language: str, seed: int, split: str) -> str | None:
    """A sentence in another language (espeak's code), or None for one that we have no list of."""
    if language not in _FOREIGN:
        return None
    known = _listed(_FOREIGN[language])
    fitting = [text for text in known if _split_of(text) == split]
    return fitting[np.random.default_rng([seed, 18]).integers(len(fitting))]


def _split_of(text: str) -> str:
    return "heldout" if zlib.crc32(text.encode()) % 8 == 0 else "train"


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeio" else f"a {word}"


def _compose(rng: np.random.Generator) -> str:
    def pick(items: list[str]) -> str:
        return items[rng.integers(len(items))]

    who = pick(_PEOPLE) if rng.random() < 0.6 else pick(_NAMES)
    patterns = (
        lambda: f"{who} {pick(_PAST)} {pick(_THINGS)} {pick(_TIMES)}.",
        lambda: f"{who} {pick(_PAST)} {pick(_THINGS)} {pick(_PLACES)}.",
        lambda: f"I {pick(_PRESENT)} {pick(_THINGS)}, but {who} {pick(_PAST)} {pick(_THINGS)}.",
        lambda: f"do you {pick(_PRESENT)} {pick(_THINGS)} {pick(_PLACES)}?",
        lambda: f"have you seen {who} {pick(_PLACES)}?",
        lambda: f"{who} and {pick(_NAMES)} met {pick(_PLACES)} {pick(_TIMES)}.",
        lambda: f"it is {pick(_ADJECTIVES)} and {pick(_ADJECTIVES)}, and a bit {pick(_ADJECTIVES)}.",
        lambda: f"what {_article(pick(_ADJECTIVES))} and {pick(_ADJECTIVES)} day!",
        lambda: f"{pick(_TIMES)} we {pick(_PRESENT)} {pick(_THINGS)} {pick(_PLACES)}.",
        lambda: f"why is {who} so {pick(_ADJECTIVES)} {pick(_TIMES)}?",
    )
    text = patterns[rng.integers(len(patterns))]()
    if rng.random() < 0.3:
        return f"{pick(_OPENERS)}, {text}"
    return text[0].upper() + text[1:]
