/** What the Markdown modules hand to each other. */

/**
 * The tree between Markdown and the page. It holds only the tags that these modules spell out, text, and links to
 * http, https and mailto: whatever a model writes, there is no way to another element or attribute.
 */
export type Node_ = string | Element_;
export type Attributes = Record<string, string>;
export interface Element_ {
  tag: string;
  attrs?: Attributes;
  kids: Node_[];
}

export interface Target {
  href: string;
  title: string;
}
/** What the definition with a normalized label leads to. */
export type Resolve = (label: string) => Target | undefined;
export type Links = Map<string, Target | undefined>;

export interface Block {
  type: string;
  open: boolean;
  kids: Block[];
  /** Of a leaf. */
  text: string;
  /** The line it starts at. */
  first: number;
  /** Its last line that is not blank. */
  last: number;
  attrs: Attributes;
  /** The kind of a list, the marks of a fence, the end of mathematics, the tag of a cell, the label of a note. */
  mark: string;
  /** Columns before the marker of an item or a fence. */
  indent: number;
  /** Columns before the content of an item. */
  width: number;
  /** Fences that are open inside a fence of Markdown. */
  depth: number;
  /** An item whose paragraphs stay paragraphs. */
  loose: boolean;
  /** What it has become, once it is closed. */
  out: Element_[] | null;
  /** The definitions that `out` rests on. */
  links: Links;
}

/** What is left of characters that open or close something, and what they open and close. */
export interface Mark {
  text: string;
  closes: number;
  opens: Element_[];
}
export interface Delimiter extends Mark {
  char: string;
  size: number;
  canOpen: boolean;
  canClose: boolean;
  order: number;
}
/** A bracket or a tag that may find its end. */
export interface Opener {
  name: string;
  mark: Mark;
  /** How many tokens and delimiters stand before it. */
  token: number;
  delimiters: number;
  /** Where its text begins. */
  at: number;
  active: boolean;
  /** Another bracket follows, so that its text is no label. */
  inner: boolean;
}
