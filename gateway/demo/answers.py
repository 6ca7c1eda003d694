"""What the simulated models say: prose with Markdown, chosen by the prompt's words.

`_TOPICS` is searched from the top; the first pattern that the prompt matches has the word, and if none does, the
general answers have it. Most topics have several answers, the best one first.
"""

import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

_TOKEN = re.compile(r"[぀-ヿ一-鿿]{1,2}| ?[^\W\d_]{1,8}| ?\d{1,3}| ?[^\w\s]{1,3}|\s+|.", re.DOTALL)


def tokens(text: str) -> list[str]:
    """The text in word pieces, as a model's tokenizer would cut it. Joined they are the text again."""
    return _TOKEN.findall(text)


def answer(messages: Sequence[dict[str, Any]], seed: int) -> str:
    """The next thing to say in a conversation; `messages` as in Ollama's chat request, not empty.

    `seed` 0 is for the first time that this is asked; each further seed gives the next of the answers.
    """
    last = messages[-1]
    if last.get("role") == "tool":
        return f"The tool says:\n\n> {_line(last, 400)}\n\nSo that is settled. Shall I look anything else up? 🔎"
    prompt = _prompt(messages)
    if last.get("role") == "assistant":  # a broken answer that is to be continued
        said = last.get("content") or ""
        rest = (text.removeprefix(said) for text in _answers(messages, prompt) if text.startswith(said))
        return next(rest, " " + _AGAIN[seed % len(_AGAIN)])
    if last.get("images"):
        return _IMAGE.format(count=len(last["images"]), plural="s" if len(last["images"]) > 1 else "")
    choice = _answers(messages, prompt)
    return choice[seed % len(choice)]


def thinking(messages: Sequence[dict[str, Any]]) -> str:
    """What a thinking model mutters before it answers."""
    before = sum(message.get("role") == "user" for message in messages) - 1
    return (
        f"The user says: {_line(messages[-1], 120)!r}. "
        + (f"This continues a conversation of {before} earlier turns, so I should not start over. " if before else "")
        + "What would help most? A direct answer first, then an example, and no more words than needed. "
        "Let me check for traps: ambiguous terms, missing facts, an easier reading of the question. "
        "None that matter. I am ready to answer.\n"
    )


def _answers(messages: Sequence[dict[str, Any]], prompt: str) -> list[str]:
    for pattern, choice in _TOPICS:
        if pattern.search(prompt):
            return choice
    topic = _line({"content": prompt}, 80)
    again = any(message.get("role") == "assistant" for message in messages[:-1])
    opening = _FOLLOW_UP if again else _OPENING
    start = crc32(prompt.encode(errors="replace"))
    bodies = [_GENERAL[(start + i) % len(_GENERAL)] for i in range(len(_GENERAL))]
    return [opening[(start + i) % len(opening)].format(topic=topic) + body for i, body in enumerate(bodies)]


def _prompt(messages: Sequence[dict[str, Any]]) -> str:
    asked = [message.get("content") or "" for message in messages if message.get("role") == "user"]
    return asked[-1] if asked else messages[-1].get("content") or ""


def _line(message: dict[str, Any], limit: int) -> str:
    """The message on one line of at most `limit` characters."""
    text = " ".join((message.get("content") or "").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


_OPENING = ("You asked: *{topic}*\n\n", "**{topic}** — let us take it step by step.\n\n", "Good question.\n\n")
_FOLLOW_UP = ("Building on what I said before:\n\n", "To go one step further:\n\n", "Put differently:\n\n")
_AGAIN = (
    "and that is where I was interrupted. The rest is short: keep what works, measure what does not.",
    "— to pick up the thread: the main point stands, and the details follow from it.",
)

_IMAGE = """I was given {count} image{plural} with that. 🖼️

I have to be honest here: I am a **simulated** model, so I cannot see what is on it. What I can say is that the
picture made the whole way: your browser sent it, the gateway passed it on unchanged, and it arrived here as
valid base64. A real vision model, `gemma3` for example, would describe it now.
"""

_PYTHON = '''Here is a small Python program that reads an answer token by token:

```python
import json
from urllib.parse import urlencode
from urllib.request import urlopen


def ask(prompt: str, gateway: str = "http://127.0.0.1:8000") -> str:
    """Print the answer as it is generated, and return all of it."""
    parts = []
    with urlopen(f"{gateway}/api/chat?{urlencode({'prompt': prompt})}") as stream:
        named = False
        for raw in stream:
            line = raw.decode().rstrip("\\n")
            if line.startswith("event:"):
                named = True
            elif not line:
                named = False
            elif line.startswith("data:") and not named:
                message = json.loads(line[5:])
                if "error" in message:
                    raise RuntimeError(message["error"])
                parts.append(message["message"]["content"])
                print(parts[-1], end="", flush=True)
                if message["done"]:
                    break
    return "".join(parts)


ask("Why is the sky blue?")
```

A few notes:

1. Only **unnamed** events carry tokens. Named ones (`meta`, `status`, `end`) are side information.
2. The loop ends on `done: true`, or on an `error`. There is no other way for a stream to end.
3. Leaving the `with` block closes the connection, and that stops the model. ⚡
'''

_FIBONACCI = '''Three ways to write it, from plain to playful:

```python
from collections.abc import Iterator
from functools import cache
from itertools import islice


@cache
def fibonacci(n: int) -> int:
    """The n-th Fibonacci number, counted from 0."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def fibonaccis() -> Iterator[int]:
    """All of them, without end."""
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


print([fibonacci(n) for n in range(10)])
print(list(islice(fibonaccis(), 10)))
```

Both lines print `[0, 1, 1, 2, 3, 5, 8, 13, 21, 34]`.

- `@cache` turns the exponential recursion into a linear one.
- The generator needs constant memory, however far you go.
- Python's integers do not overflow, so `fibonacci(300)` is exact.
'''

_JAVASCRIPT = """With `EventSource` it takes only a few lines:

```js
const source = new EventSource("/api/chat?prompt=" + encodeURIComponent("Why is the sky blue?"));

source.onmessage = ({ data }) => {
  const { message, done, error } = JSON.parse(data);
  if (error) output.append(`\\n⚠️ ${error}`);
  else output.append(message.content);
  if (done || error) source.close();
};
```

And the page around it:

```html
<button id="stop">Stop</button>
<pre id="output" aria-live="polite"></pre>
```

```css
#output {
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
```

Why it works so well:

- `append` takes **text**, not HTML, so nothing the model writes can run as a script — not even `<img onerror=…>`.
- If the network blinks, the browser reconnects by itself and sends `Last-Event-ID`; you miss nothing.
- `source.close()` is also your Stop button: when the last reader leaves, the model stops.
"""

_SHELL = """From a terminal, with `curl`:

```bash
# -N switches curl's own buffering off
curl -N 'http://127.0.0.1:8000/api/chat?prompt=Why+is+the+sky+blue%3F'
```

Only the text, please:

```bash
curl -sN "http://127.0.0.1:8000/api/chat?prompt=Hi" |
  sed -un 's/^data: //p' |
  jq --unbuffered -rj '.message.content // empty'
```

Press <kbd>Ctrl</kbd>+<kbd>C</kbd> and the connection closes; the gateway notices and stops the model. You can
watch that happen with `ollama ps`, or here in the simulator with `GET /simulator`.
"""

_SQL = """Suppose each chat is a row, and each message belongs to one chat:

```sql
SELECT   c.title,
         count(*)                                   AS messages,
         sum(m.tokens) FILTER (WHERE m.role = 'assistant') AS generated,
         max(m.created_at)                          AS last_activity
FROM     chats    AS c
JOIN     messages AS m ON m.chat_id = c.id
WHERE    m.created_at >= current_date - INTERVAL '7 days'
GROUP BY c.id, c.title
HAVING   count(*) > 2
ORDER BY last_activity DESC
LIMIT    20;
```

| title | messages | generated | last_activity |
|---|---:|---:|---|
| Blue sky | 4 | 812 | 2026-03-01 10:02 |
| Sourdough | 12 | 3 401 | 2026-02-28 21:47 |
| Regex help | 3 | 260 | 2026-02-27 08:15 |

An index on `messages (chat_id, created_at)` keeps it fast when the table grows.
"""

_RUST = """In Rust the compiler makes you say what happens when a line is cut in half:

```rust
/// Split bytes into lines; what is not whole yet waits for more.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|&b| b == b'\\n') {
            let mut line: Vec<u8> = self.rest.drain(..=end).collect();
            line.pop();
            lines.push(line);
        }
        lines
    }
}

fn main() {
    let mut lines = Lines::default();
    assert!(lines.feed(b"{\\"done\\":fal").is_empty());
    assert_eq!(lines.feed(b"se}\\n"), vec![b"{\\"done\\":false}".to_vec()]);
    println!("ok");
}
```

The two assertions are the whole point: a network read may end **anywhere**, even inside a character.
"""

_TABLE = """There is one comparison that I know by heart, so here it is:

| | Server-Sent Events | WebSocket | Long polling |
|---|---|---|---|
| Direction | server → browser | both ways | server → browser |
| Protocol | plain HTTP | own, after an upgrade | plain HTTP |
| Reconnect | **built in** | write it yourself | write it yourself |
| Resume | `Last-Event-ID` | write it yourself | write it yourself |
| Proxies | mostly fine | sometimes blocked | fine |
| Overhead per token | a few bytes | a few bytes | a whole request |
| Best for | streams of text ✅ | games, editors | very old clients |

For a language model the choice is easy: the question is small and travels once, the answer is long and travels
in pieces. That is exactly what an event stream is made for.
"""

_PLANETS = """The planets of our solar system, from the inside out 🪐

| Planet | Diameter (km) | Day | Year | Moons known |
|:--|--:|--:|--:|--:|
| Mercury | 4 879 | 58.6 d | 88 d | 0 |
| Venus | 12 104 | 243 d | 225 d | 0 |
| Earth 🌍 | 12 742 | 23.9 h | 365 d | 1 |
| Mars | 6 779 | 24.6 h | 687 d | 2 |
| Jupiter | 139 820 | 9.9 h | 11.9 y | over 90 |
| Saturn | 116 460 | 10.7 h | 29.5 y | over 140 |
| Uranus | 50 724 | 17.2 h | 84 y | 28 or more |
| Neptune | 49 244 | 16.1 h | 165 y | 16 |

Two things to notice: Venus takes longer to turn once than to go round the Sun, and all the other planets would
fit between Earth and Moon, with some room to spare.
"""

_GATEWAY = """## What this gateway does

Ollama answers with lines of JSON over a `POST`. A browser's `EventSource` can read neither. The gateway stands
between the two and turns every answer into a **stream of server-sent events**:

1. Your browser opens `GET /api/chat?prompt=…`.
2. The gateway answers *at once*, so that no proxy loses patience while the model loads.
3. Every line from Ollama becomes one event, **byte for byte**.
4. Each event has an id. After a network hiccup the browser continues where it was; the model is **not** run again.
5. When you close the tab, the gateway closes its connection to Ollama, and the GPU is free. 🎉

| phase | what happens | what you see |
|---|---|---|
| `queued` | others are before you | your position |
| `loading` | the model goes into memory | seconds passing |
| `prompt` | the model reads your question | seconds passing |
| `generating` | tokens arrive | the answer |

> What you are reading comes from the **built-in simulator**: the wire is Ollama's, the wisdom is canned.
> Start the gateway without `--demo` to talk to a real model.

Try `curl -N 'http://127.0.0.1:8000/api/chat?prompt=Hello'` to see the raw events.
"""

_EVENTS = """An event stream is one of the simplest formats on the web. This is all there is to it:

```text
retry: 1000

event: status
data: {"phase":"loading","elapsed_ms":2000}

: a comment; it keeps the connection alive

data: {"message":{"content":"Hel"},"done":false}
id: 4f9k2-1

data: {"message":{"content":"lo"},"done":true}
id: 4f9k2-2
```

- A **blank line** ends an event.
- `data:` is the payload. It must not hold a raw line break, which is why tokens travel inside JSON.
- `event:` names it; without a name it goes to `onmessage`.
- `id:` is remembered by the browser and sent back as `Last-Event-ID` when it reconnects.
- `retry:` says how many milliseconds to wait before that.
- A line that begins with `:` is a comment. Nobody sees it, but it proves that the line is alive. 💓

The trap: `EventSource` also reconnects after a *clean* end. So a good server says when it is done, and a good
client then calls `close()`.
"""

_SKY = """The sky is blue because of **Rayleigh scattering**.

Sunlight looks white, but it is a mixture of all colours. On its way through the air it meets molecules of
nitrogen and oxygen, far smaller than the wavelength of light. They scatter it in all directions, and they
scatter short waves much more than long ones: the strength goes with 1/λ⁴.

| Colour | Wavelength | Scattered, relative to red |
|---|--:|--:|
| 🔴 red | 700 nm | 1 |
| 🟢 green | 530 nm | 3 |
| 🔵 blue | 450 nm | 6 |

So blue light reaches your eye from every part of the sky, while the other colours mostly go straight on.

**But violet is shorter still!** True. There is less violet in sunlight, some of it is absorbed high up, and our
eyes are less sensitive to it.

At sunset the light takes a much longer way through the air. Most of the blue has been scattered out of it before
it arrives, and what is left is orange and red. 🌅
"""

_SKY_SHORT = """Short version: **air scatters blue light more than red light.**

1. Sunlight contains all colours.
2. Molecules of air send light off in new directions; the shorter the wavelength, the more of it.
3. Blue is short, so scattered blue comes at you from everywhere above.
4. In the evening the path through the air is long. The blue is lost on the way; red and orange remain.

You can see it at home: put a few drops of milk into a glass of water and shine a torch through it. From the side
it looks bluish; from the far end, orange. 🔦
"""

_STEPS = """A plan that fits on one page:

### Before you start
- [ ] Say in **one sentence** what will be different when you are done
- [ ] Find the smallest piece that is useful by itself
- [ ] Decide how you will know that it works

### The work
1. **Sketch** it, on paper if you can. Ten minutes.
2. **Build** the smallest piece, all the way through.
   - No shortcuts in what others will rely on.
   - Every shortcut you like in what only you will see.
3. **Try** it on something real.
   1. Watch someone else use it.
   2. Do not explain. Take notes. 📝
4. **Repair** what surprised them.
5. **Repeat** from 2 with the next piece.

### Afterwards
Write down what you would do differently. Future you will be grateful.

> Plans are worthless, but planning is everything. — *Dwight D. Eisenhower*
"""

_RECIPE = """I know a single recipe, but it is a good one.

## Pancakes for four 🥞

**Ingredients**

| | |
|--:|---|
| 250 g | flour |
| 2 | eggs |
| 400 ml | milk |
| 1 tsp | baking powder |
| 1 pinch | salt |
| 2 tbsp | sugar |
| some | butter for the pan |

**Steps**

1. Mix flour, baking powder, salt and sugar.
2. Whisk eggs and milk, then stir them in. A few lumps are fine.
3. Let the batter rest for **15 minutes**. This is the step everybody skips, and the one that matters.
4. Melt a little butter over medium heat.
5. Pour in a ladle of batter. Turn it when bubbles stay open, after about 2 minutes.
6. One more minute on the other side.

Serve at once, with lemon and sugar or with maple syrup. The first one always looks odd: it belongs to the cook. 👩‍🍳
"""

_TRANSLATE = """Here it is in a few languages:

| Language | Translation |
|---|---|
| 🇩🇪 German | Guten Morgen! Wie geht es dir? |
| 🇫🇷 French | Bonjour ! Comment ça va ? |
| 🇪🇸 Spanish | ¡Buenos días! ¿Cómo estás? |
| 🇵🇱 Polish | Dzień dobry! Jak się masz? |
| 🇬🇷 Greek | Καλημέρα! Τι κάνεις; |
| 🇯🇵 Japanese | おはようございます。お元気ですか。 |
| 🇮🇱 Hebrew | בוקר טוב! מה שלומך? |
| 🇮🇳 Hindi | सुप्रभात! आप कैसे हैं? |

As a simulated model I know only this one sentence, *“Good morning! How are you?”*, but I know it well. All of it
has come through the gateway byte for byte, from right-to-left script to combining marks.
"""

_JAPANESE = """こんにちは!ご質問ありがとうございます。😊

## このゲートウェイについて

Ollama の応答は、改行で区切られた JSON です。ブラウザの `EventSource` はそれを直接読めません。
このゲートウェイは、応答を **Server-Sent Events** に変換します。

1. ブラウザが `GET /api/chat?prompt=…` を開きます。
2. ゲートウェイはすぐに応答を始めます。
3. トークンは生成されるたびに届きます。
4. タブを閉じると、モデルの生成も止まります。

| 段階 | 意味 |
|---|---|
| `loading` | モデルを読み込み中 |
| `prompt` | 質問を読んでいる |
| `generating` | 回答を生成中 |

```js
const source = new EventSource("/api/chat?prompt=" + encodeURIComponent("こんにちは"));
```

私は本物のモデルではなく、シミュレーターです。それでも、文字は一つも欠けずに届きます。🌸
"""

_JAPANESE_SKY = """空が青いのは、**レイリー散乱**のためです。

太陽の光にはすべての色が含まれています。光が大気を通るとき、空気の分子は波長の短い光を強く散乱します。
青い光は赤い光のおよそ六倍も散乱されるので、空のあらゆる方向から青い光が目に届きます。

- 🌞 昼:光の通り道が短く、空は青く見えます。
- 🌇 夕方:通り道が長く、青い光は途中で失われ、赤い光が残ります。

松尾芭蕉の句を一つ。

> 古池や 蛙飛び込む 水の音
"""

_POEM = """**The Stream**

A question leaves, a single line,
and somewhere, far from where you wait,
a fan spins up, the weights align,
the silence hums: it loads. It's late.

Then, word by word, and none too soon,
the answer comes, a thread of light,
each piece a small, enumerated moon
that finds its number in the night.

And should the cable slip and fall,
no word is lost, no line begun
again: it knows, it kept them all,
and carries on from *forty-one*.

Then **end**. You close the tab and go.
The fan slows down. It, too, may know. 🌙
"""

_HAIKU = """Three of them, on what happens while you wait:

*The model is loading —*
*a comment, then another:*
*still here. Still here. Here.*

*Token by token*
*the sentence finds its ending;*
*the tab closes. Hush.*

*Wi-Fi lost, and found:*
*“the last I heard was nineteen.”*
*“Twenty,” says the stream.* 🍃
"""

_STORY = """# The Lighthouse at the End of the Wire

Marta kept the lighthouse, and the lighthouse kept quiet.

Every evening the ships asked it the same question, in short flashes: *Are you there?* And every evening the great
lamp needed its time to grow warm. It was an old lamp. Sometimes it took two minutes before the first beam swept
the water, and two minutes are long when you steer towards rocks.

“They turn around,” her brother told her. “They see no light, so they think that nobody is home.”

So Marta put a candle in the window. 🕯️

It was not the light the ships had asked for. Nobody could have steered by it. But it flickered every few seconds,
and a captain who saw it said: “Someone is up. Let us wait.” And they waited; and then the lamp was warm, and the
beam came round, steady, one sweep after another, and they counted the sweeps.

One night fog came in. It hid the lamp for a minute, and when it lifted, the youngest captain signalled: *I counted
seventeen, then I lost you.*

Marta did not begin again at one. She knew where they were.

*Eighteen*, flashed the lamp. *Nineteen. Twenty.*

When the last ship was in, she put the lamp out at once, for oil is dear. Then she blew out the candle, wrote
**“end”** in the log, and went to bed.
"""

_JOKES = [
    "Why do server-sent events make such bad gossips? They only ever tell you *one side* of the conversation. 😄",
    "There are two hard things in computing: cache invalidation, naming things, and off-by-one errors. 🙃",
    "A browser walks into a bar. The bartender says nothing. The browser waits 30 seconds, leaves, and comes back in "
    "with a `Last-Event-ID`. “As I was saying,” says the bartender. 🍻",
]

_MATHS = """My favourite piece of algebra: the quadratic formula, derived by completing the square.

Start with *ax² + bx + c = 0* and *a ≠ 0*.

1. Divide by *a*: `x² + (b/a)·x = −c/a`
2. Add `(b/2a)²` on both sides: `x² + (b/a)·x + (b/2a)² = (b/2a)² − c/a`
3. The left side is a square: `(x + b/2a)² = (b² − 4ac) / 4a²`
4. Take the root: `x + b/2a = ± √(b² − 4ac) / 2a`

And there it is:

```text
         −b ± √(b² − 4ac)
    x = ──────────────────
               2a
```

The term under the root, **D = b² − 4ac**, tells how many real solutions there are:

| D | real solutions | example |
|---|:-:|---|
| D > 0 | 2 | x² − 1 = 0 |
| D = 0 | 1 | x² = 0 |
| D < 0 | 0 | x² + 1 = 0 |
"""

_MARKDOWN = """# Everything at once

A paragraph with **bold**, *italic*, ***both***, ~~struck out~~, `inline code` and a
[link](https://html.spec.whatwg.org/multipage/server-sent-events.html).

## Lists

- one
- two
  - two and a half
    - two and three quarters
- three

1. first
2. second
   1. second, part one
   2. second, part two

- [x] done
- [ ] not yet

## A table

| left | centre | right |
|:--|:-:|--:|
| a | b | 1 |
| `code` | **bold** | 1 000 |
| a \\| b | 😀 | −3.5 |

## Code

```python
def greet(name: str) -> str:
    return f"Hello, {name}!  # <b>not HTML</b> & not a heading"
```

```json
{"done": true, "done_reason": "stop"}
```

~~~
a fence of tildes, with ``` inside
~~~

## The rest

> A quote,
> on two lines.
>
> > And one inside it.

---

Things that must stay text: <script>alert("no")</script> &amp; &lt;b&gt;, 5 < 6 && 7 > 6, \\*stars\\*.

Emoji in one piece: 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ✊🏿 🏳️‍🌈 · 日本語 · العربية · Ελληνικά · e\u0301
"""

_SUMMARY = """In short:

- **What:** a question goes in, an answer comes out piece by piece.
- **Why it matters:** the first word after half a second feels fast, even if the last one takes a minute.
- **The catch:** connections break, models load slowly, and people change their minds.
- **The remedy:** number the pieces, keep the line warm, and stop the work when nobody is reading.

If you remember only one thing: *streaming is not about speed, it is about not being left alone.* ✨
"""

_ABOUT = """I am a **simulated model**. 🤖

There are no neural networks in me. I am a few hundred lines of Python that speak exactly the language of an Ollama
server, silences, errors and all, so that you can try this gateway without a GPU and test a frontend without waiting.

You might ask me:

- *Why is the sky blue?*
- *Show me a table*
- *Write some Python* — or JavaScript, SQL, Rust, a shell command
- *Tell me a story*, or a joke, or a haiku
- *How does this gateway work?*
- 日本語でどうぞ

To talk to a real model, install [Ollama](https://ollama.com), run `ollama pull llama3.2`, and start the gateway
without `--demo`.
"""

_GREETINGS = [
    "Hello! 👋 What would you like to talk about?",
    "Hi there! 😊 Ask me anything — or ask me *how this gateway works*.",
    "Hey! Nice to meet you. I am a simulated model, but my tokens are real. What can I do for you?",
]
_THANKS = ["You are welcome! 😊", "Any time. Good luck with it! 🍀", "My pleasure. Is there anything else?"]

_GENERAL = (
    """### The short answer
It depends on what you want to keep and what you are willing to give up. Most of the time the **simple** version is
the right one, and you will notice early when it is not.

### The longer one
Three questions usually settle it:

1. **Who is it for?** One person, a team, or everybody? Each step costs about ten times as much as the one before.
2. **How will you know?** Choose one number that gets better if you are right. Look at it before you begin.
3. **What if you are wrong?** If you can go back in an hour, just try it. If you cannot, sleep on it.

| | try it | think first |
|---|:-:|:-:|
| cheap to undo | ✅ | |
| expensive to undo | | ✅ |
| nobody else is affected | ✅ | |
| others rely on it | | ✅ |

### An example
Suppose that you want to learn to bake bread. You could read three books. Or you could mix flour, water, salt and
yeast tonight, and read the books with *questions* in your head. The second loaf will be better than the third book.

Would you like me to go deeper into one of these points?
""",
    """There are several sides to it, so let me take them one by one.

**What is known.** The basic facts are not disputed: things change slowly, then all at once, and those who have
looked closely mostly agree about the direction, if not about the pace.

**What is not.** Nobody has good numbers for the long run. Be careful with curves that are drawn beyond their data.

**What you can do.**

- Start with the part that is in your own hands.
- Write down what you expect, with a date. 📅
- Compare, and be honest about it.

> “It is difficult to make predictions, especially about the future.” — *Danish proverb*

A tiny bit of code says it better than I can:

```python
belief = 0.5
for observed in evidence:
    belief = update(belief, observed)   # small steps, often
```

In other words: do not look for certainty. Look for the next *observation* that could change your mind, and make it
cheap to get. Everything else is patience.
""",
    """Let me give you a picture first. 🖼️

Imagine a kitchen with one cook and many guests. Each guest asks for a dish; the cook can only work at one stove.
There are exactly three things that the **waiter** can do to make the evening better:

1. **Say something at once.** “The cook has your order” costs nothing, and nobody walks out.
2. **Bring the plates one by one.** A starter now beats a menu in an hour.
3. **Tell the cook when a guest has left.** Otherwise the stove is busy for an empty chair.

That is the whole idea; all the rest is detail:

- A queue is fair if everybody can *see* it.
- A delay is shorter if somebody explains it.
- Work that nobody waits for is not work, it is heat. 🔥

So my advice: find out who is the waiter in your case, and begin there. It is nearly always cheaper to improve the
waiter than to buy a second cook.
""",
)

_ALL_PROSE = [_STORY, _SKY, _GATEWAY, _STEPS, _PLANETS, _PYTHON, _MATHS, _POEM, _MARKDOWN, _RECIPE]


def _topic(words: str, *choice: str) -> tuple[re.Pattern[str], list[str]]:
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE), list(choice)


_TOPICS = [
    (re.compile("[぀-ヿ一-鿿].*空|空.*青"), [_JAPANESE_SKY]),
    (re.compile("[぀-ヿ一-鿿]"), [_JAPANESE, _JAPANESE_SKY]),
    _topic("(very|really) long|long (answer|text|story)|at length|essay", "\n---\n\n".join(_ALL_PROSE)),
    _topic("markdown", _MARKDOWN),
    _topic("translat(e|ion)", _TRANSLATE),
    _topic("rust|cargo", _RUST),
    _topic("sql|database|query", _SQL),
    _topic("bash|shell|curl|terminal|command line", _SHELL),
    _topic("javascript|typescript|js|html|css|frontend", _JAVASCRIPT),
    _topic("fibonacci", _FIBONACCI),
    _topic("python|code|program|function|script", _PYTHON, _FIBONACCI),
    _topic("planets?|solar system", _PLANETS),
    _topic("table|compare|comparison|versus|vs", _TABLE, _PLANETS),
    _topic("gateway|ollama|proxy", _GATEWAY, _EVENTS),
    _topic("sse|server-sent|events?|eventsource|streams?|streaming|last-event-id", _EVENTS, _GATEWAY),
    _topic("sky|blue|rayleigh|sunset", _SKY, _SKY_SHORT),
    _topic("recipe|cook|bake|pancakes?|dinner", _RECIPE),
    _topic("haiku", _HAIKU),
    _topic("poem|poetry|verse|rhyme", _POEM, _HAIKU),
    _topic("story|tale", _STORY),
    _topic("jokes?|funny|laugh", *_JOKES),
    _topic("maths?|equation|quadratic|formula|proof|prove", _MATHS),
    _topic("steps?|plan|how (do|can|should) (i|we)|checklist|to-?do", _STEPS),
    _topic("summar(y|i[sz]e)|tl;?dr|in short", _SUMMARY),
    _topic("who are you|what are you|your name|help|what can you do", _ABOUT),
    _topic("thanks|thank you|thx|cheers", *_THANKS),
    (re.compile(r"(?i)^\W*(hi|hello|hey|hallo|moin|good (morning|evening)|greetings)\b.{0,20}$"), _GREETINGS),
]
