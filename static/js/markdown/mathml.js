/** What the names and commands of LaTeX stand for: characters, alphabets, and the elements of MathML. */
/** @import {Reader} from "./maths.js" */
/** @import {Attributes, Element_} from "./types.js" */
import { GREEK, signs } from "./references.js";
import { node } from "./tokens.js";

/** @param {string} list names and values in turn */
const pairs = (list) => new Map(Array.from(list.matchAll(/(\S+) (\S+)/g), ([, name, value]) => [name, value]));
/** @param {string} list */
const names = (list) => new Set(list.split(" "));

/** Letters and other signs, then operators, relations and arrows. */
const SYMBOLS = new Map([
  ...GREEK,
  ["|", "‖"],
  ...signs(`
epsilonϵvarepsilonεvarthetaϑvarrhoϱphiϕvarphiφellℓhbarℏimathıReℜImℑalephℵpartial∂nabla∇infty∞emptyset∅varnothing∅
forall∀exists∃nexists∄top⊤bot⊥angle∠triangle△square□Box□checkmark✓degree°prime′dag†ddag‡pm±mp∓times×div÷cdot⋅ast∗
star⋆circ∘bullet∙oplus⊕otimes⊗odot⊙cap∩cup∪wedge∧land∧vee∨lor∨setminus∖dagger†ddagger‡diamond⋄neg¬lnot¬le≤leq≤
leqslant⩽ge≥geq≥geqslant⩾ne≠neq≠ll≪gg≫equiv≡sim∼simeq≃approx≈cong≅doteq≐propto∝prec≺succ≻preceq⪯succeq⪰subset⊂
supset⊃subseteq⊆supseteq⊇subsetneq⊊supsetneq⊋nsubseteq⊈in∈notin∉ni∋mid∣nmid∤parallel∥perp⊥vdash⊢models⊨vDash⊨
lesssim≲gtrsim≳triangleq≜coloneqq≔therefore∴because∵to→rightarrow→leftarrow←uparrow↑downarrow↓leftrightarrow↔
Rightarrow⇒implies⟹Leftarrow⇐impliedby⟸Uparrow⇑Downarrow⇓Leftrightarrow⇔iff⟺mapsto↦longmapsto⟼longrightarrow⟶
longleftarrow⟵longleftrightarrow⟷Longrightarrow⟹Longleftarrow⟸Longleftrightarrow⟺hookrightarrow↪nearrow↗searrow↘
rightharpoonup⇀rightleftharpoons⇌leadsto⇝ldots…dots…dotsc…dotso…cdots⋯dotsb⋯dotsm⋯dotsi⋯vdots⋮ddots⋱colon:lt<gt>
backslash\\vert|Vert‖lvert|rvert|lVert‖rVert‖lbrace{rbrace}lbrack[rbrack]langle⟨rangle⟩lfloor⌊rfloor⌋lceil⌈rceil⌉
sum∑prod∏coprod∐bigcup⋃bigcap⋂bigvee⋁bigwedge⋀bigoplus⨁bigotimes⨂bigsqcup⨆int∫iint∬iiint∭oint∮oiint∯`),
]);
/** @param {string} name @returns {string | undefined} */
export const sign = (name) => (/^[{}$%#&_]$/.test(name) ? name : SYMBOLS.get(name));
const FUNCTIONS = names(
  "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arg deg dim exp hom ker lg ln log sgn tr rank",
);
/** Functions that have limits, too. */
const LIMITS = names("lim limsup liminf max min sup inf det gcd Pr argmax argmin");
/** Over their base, or under it; all but the long ones keep their size. */
export const ACCENTS = signs(
  "hat^widehat^checkˇtilde~widetilde~acute´grave`dot˙ddot¨breve˘bar‾overline‾vec→mathring˚overrightarrow→overleftarrow←" +
    "overbrace⏞underline_underbrace⏟underrightarrow→underleftarrow←",
);
/** In em. */
const SPACES = pairs(", 0.17 : 0.22 > 0.22 ; 0.28 ! -0.17 quad 1 qquad 2");
const IGNORED = names("nonumber notag displaystyle textstyle scriptstyle hline /");

/** Their brackets, and how their columns are aligned in turn, each after a colon. */
export const TABLES = pairs(
  "matrix :: smallmatrix :: array :: gather :: gathered :: multline :: equation :: pmatrix (:): bmatrix [:]: Bmatrix {:}: " +
    "vmatrix |:|: Vmatrix ‖:‖: cases {::left dcases {::left rcases :}:left aligned ::right,left align ::right,left " +
    "alignedat ::right,left alignat ::right,left split ::right,left eqnarray ::right,center,left",
);

/**
 * Alphabets without the "math" or "text" that they begin with, in the order of Unicode: bold, italic, bold italic, script
 * and so on, each of 26 capitals and 26 small letters. -1 is upright.
 */
const FONTS = pairs("rm -1 roman -1 bf 0 it 1 boldsymbol 2 bm 2 cal 3 scr 3 frak 5 bb 6 Bbb 6 sf 8 tt 12");
const ITALIC = 1;
const BOLD_ITALIC = 2;
/** Letters that had a place before their alphabet had one. @type {Record<number, string>} */
const ELSEWHERE = { 3: "ℬℰℱℋℐℒℳℛℯℊℴ", 5: "ℭℌℑℜℨ", 6: "ℂℍℕℙℚℝℤ" };

/** The alphabet of a command, if it is one. @param {string} name */
export function fontOf(name) {
  const font = FONTS.get(name.replace(/^(?:math|text)/, ""));
  return font ? Number(font) : null;
}

/** A character in another alphabet. @param {string} char @param {number} font */
export function inFont(char, font) {
  if (font < 0 || font === ITALIC) return char;
  const other = [...(ELSEWHERE[font] ?? "")].find((letter) => letter.normalize("NFKC") === char);
  if (other) return other;
  let begin = 0;
  if (/[A-Z]/.test(char)) begin = 0x1d400 + 52 * font - 65;
  else if (/[a-z]/.test(char)) begin = 0x1d41a + 52 * font - 97;
  // Only the bold alphabets have Greek letters, of which capitals stay upright, and not all have digits.
  else if (/[Α-Ω]/.test(char) && font <= BOLD_ITALIC) begin = 0x1d6a8 - 0x391;
  else if (/[α-ω]/.test(char) && font <= BOLD_ITALIC) begin = 0x1d6c2 + 58 * font - 0x3b1;
  else if (/\d/.test(char) && font % 2 === 0) begin = 0x1d7ce + 10 * Math.max(0, font / 2 - 2) - 48;
  return String.fromCodePoint(begin + (char.codePointAt(0) ?? 0));
}

// Elements -----------------------------------------------------------------------------------------------

export const LETTER = /[\p{L}\p{M}∞∂∇∅∀∃∄⊤∠△□■✓°∁§$%#&_]/u;
const UPRIGHT = /[^\p{L}∂]|[Α-Ω]/u;

/** The formula is not known whole. */
export class Unknown extends Error {}

/** @param {string} text @param {Attributes} [attrs] */
export const mo = (text, attrs) => node("mo", [text], attrs);
/** @param {string | number} em */
export const space = (em) => node("mspace", [], { width: `${em}em` });
/** @param {string} bracket */
export const fence = (bracket) => mo(bracket, { fence: "true", stretchy: "true" });
/** @param {Element_[]} kids @returns {Element_} */
export const row = (kids) => (kids.length === 1 && kids[0] ? kids[0] : node("mrow", kids));

/** @param {string} char */
export function character(char) {
  if (LETTER.test(char)) return node("mi", [char], UPRIGHT.test(char) ? { mathvariant: "normal" } : undefined);
  if (/[∏-∑⋀-⋃⨀-⨆]/.test(char)) return mo(char, { movablelimits: "true" });
  if (/[\p{Ps}\p{Pe}|‖/]/u.test(char)) return mo(char, { stretchy: "false" });
  return mo(char.replace("-", "−").replace("*", "∗"));
}

/** What a command without arguments stands for. @param {string} name @returns {Element_[] | null} */
export function plain(name) {
  const char = sign(name);
  if (char) return [character(char)];
  if (LIMITS.has(name)) return [mo(name.replace(/^(?:lim|arg)(?=.)/, "$&\u2009"), { movablelimits: "true" })];
  if (FUNCTIONS.has(name)) return [node("mi", [name])];
  const em = SPACES.get(name) ?? (/\s/.test(name) && 0.25);
  if (em) return [space(em)];
  return IGNORED.has(name) ? [] : null;
}

/** @param {Element_} top @param {Element_} bottom */
export const binomial = (top, bottom) =>
  node("mrow", [fence("("), node("mfrac", [top, bottom], { linethickness: "0" }), fence(")")]);

/** @param {Element_[][][]} rows @param {string} align names of sides, for its columns in turn */
export function table(rows, align) {
  const sides = align.split(",");
  const kids = rows.map((cells) =>
    node(
      "mtr",
      cells.map((cell, i) => node("mtd", cell, align ? { class: sides[i % sides.length] ?? "" } : undefined)),
    ),
  );
  return node("mtable", kids, align.startsWith("right") ? { class: "aligned", displaystyle: "true" } : undefined);
}

/** @param {Element_} element @param {number} font @returns {Element_} */
function restyled(element, font) {
  const { tag, kids } = element;
  if (tag === "mtext" || tag === "mo") return element;
  if (tag !== "mi" && tag !== "mn")
    return { ...element, kids: kids.map((kid) => (typeof kid === "string" ? kid : restyled(kid, font))) };
  const text = [...String(kids[0])].map((char) => inFont(char, font)).join("");
  return node(tag, [text], tag === "mi" && font !== ITALIC ? { mathvariant: "normal" } : undefined);
}

/** In another alphabet, where letters of a word are one name. @param {Element_[]} elements @param {number} font */
export function joined(elements, font) {
  /** @type {Element_[]} */
  const words = [];
  for (const element of elements) {
    const kid = restyled(element, font);
    const last = words.at(-1);
    if (kid.tag === "mi" && last?.tag === "mi" && font !== ITALIC && font !== BOLD_ITALIC)
      last.kids = [`${last.kids}${kid.kids}`];
    else words.push(kid);
  }
  return words;
}

/** Commands, which read their arguments. @type {Record<string, (reader: Reader, name: string) => Element_ | Element_[]>} */
export const COMMANDS = {
  frac: (reader) => node("mfrac", [reader.argument(), reader.argument()]),
  binom: (reader) => binomial(reader.argument(), reader.argument()),
  overset: (reader) => node("mover", [reader.argument(), reader.argument()].reverse()),
  underset: (reader) => node("munder", [reader.argument(), reader.argument()].reverse()),
  boxed: (reader) => node("mrow", [reader.argument()], { class: "boxed" }),
  phantom: (reader) => node("mphantom", [reader.argument()]),
  mathop: (reader) => node("mrow", [reader.argument()], { movablelimits: "true" }),
  mathbin: (reader) => reader.argument(),
  bmod: () => [space(0.22), node("mi", ["mod"]), space(0.22)],
  pmod: (reader) => [space(1), mo("("), node("mi", ["mod"]), space(0.33), reader.argument(), mo(")")],
  tag: (reader) => [space(2), node("mtext", [`(${reader.raw()})`])],
  label(reader) {
    reader.raw();
    return [];
  },
  begin: (reader) => reader.environment(),
  sqrt(reader) {
    const degree = reader.optional();
    const base = reader.argument();
    return degree ? node("mroot", [base, degree]) : node("msqrt", [base]);
  },
  left(reader) {
    const kids = [fence(reader.delimiter())];
    for (let last = false; !last; ) {
      kids.push(row(reader.row()));
      last = reader.take("\\right");
      if (!last) reader.expect("\\middle");
      kids.push(fence(reader.delimiter()));
    }
    return node("mrow", kids);
  },
  operatorname(reader) {
    const limits = reader.take("*");
    const text = reader.raw().replace(/\\[,;: ]|~/g, "\u2009");
    if (/[\\{}]/.test(text)) throw new Unknown();
    return limits ? mo(text, { movablelimits: "true" }) : node("mi", [text]);
  },
  xrightarrow(reader, name) {
    const below = reader.optional();
    const above = reader.argument();
    const arrow = mo(name === "xleftarrow" ? "←" : "→", { stretchy: "true" });
    return below ? node("munderover", [arrow, below, above]) : node("mover", [arrow, above]);
  },
  not(reader) {
    const negated = `${reader.atom()[0]?.kids[0]}\u0338`.normalize("NFC");
    if (negated.length > 1) throw new Unknown();
    return mo(negated);
  },
  substack(reader) {
    reader.expect("{");
    const rows = reader.rows("}");
    reader.expect("}");
    return table(rows, "");
  },
};
/** Names for the same. */
export const SAME = pairs(
  "stackrel overset xleftarrow xrightarrow fbox boxed mathrel mathbin mathord mathbin mod bmod",
);
