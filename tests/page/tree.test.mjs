/** Turns as a tree, and what is stored of them: branches, orphans, circles, pieces that overlap or are missing. */
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { test } from "node:test";
import { newAnswer, reduceAnswer } from "../../static/js/answer.js";
import { fromBackup, toBackup, toMarkdown } from "../../static/js/backup.js";
import { merge, pieceOf } from "../../static/js/merging.js";
import { assemble, reviveTurn } from "../../static/js/revive.js";
import { NO_SETTINGS, newChat, newTurn } from "../../static/js/state.js";
import { followersOf, parentOf, pathOf, versionsOf } from "../../static/js/tree.js";

globalThis.crypto ??= webcrypto; // Node 18 has it there only

const turn = (id, at, parent, chosen = at) => ({ ...newTurn(id, []), id, at, parent, chosen });
const ids = (turns) => turns.map(({ id }) => id);

test("the path takes at every fork what was wanted last", () => {
  const turns = [turn("a", 1, ""), turn("b", 2, "a"), turn("A", 3, ""), turn("c", 4, "A"), turn("C", 5, "A", 3)];
  assert.deepEqual(ids(pathOf(turns)), ["A", "c"]);
  assert.deepEqual(ids(pathOf([turn("a", 1, "", 9), ...turns.slice(1)])), ["a", "b"]);
  assert.deepEqual(ids(versionsOf(turns, "c")), ["c", "C"]);
  assert.deepEqual(ids(followersOf(turns, "a")), ["b"]);
  assert.deepEqual([parentOf(turns, "b"), parentOf(turns, "a")], ["a", ""]);
});

test("turns of version 1, and those whose parent is gone, follow the one before them", () => {
  const old = ["a", "b", "c"].map((id, i) => reviveTurn({ id, at: i + 1, prompt: id }));
  assert.deepEqual(ids(pathOf(old)), ["a", "b", "c"]);
  assert.deepEqual(ids(pathOf([turn("a", 1, ""), turn("c", 3, "gone")])), ["a", "c"]);
});

test("a circle loses nothing", () => {
  assert.deepEqual(ids(pathOf([turn("a", 1, "b"), turn("b", 2, "a")])), ["a", "b"]);
  assert.deepEqual(pathOf([]), []);
});

const stored = { chat: "c", turn: "t", id: "a", status: "streaming", text: "", thinking: "", active: 1 };
const piece = (number, textAt, text, patch = {}) => ({
  ...{ chat: "c", turn: "t", answer: "a", number, textAt, text, thinkingAt: 0, thinking: "", patch },
});
const answer = (pieces) => assemble([{ chat: "c", id: "t", at: 1 }], [], [stored], pieces)[0].answers[0];

test("a growing answer is its pieces", () => {
  const { text, lastId, url } = answer([
    piece(1, 0, "Hel", { url: "/u", lastId: "s-1" }),
    piece(2, 3, "lo", { lastId: "s-2" }),
  ]);
  assert.deepEqual([text, lastId, url], ["Hello", "s-2", "/u"]);
});

test("pieces of two readers overlap, and the id is always that of the text", () => {
  const overlapping = [piece(1, 0, "abcdef", { lastId: "s-6" }), piece(2, 3, "def", { lastId: "s-6" })];
  assert.equal(answer([...overlapping, piece(3, 6, "gh", { lastId: "s-8" })]).text, "abcdefgh");
  const shorter = answer([...overlapping, piece(3, 3, "de", { lastId: "s-5" })]);
  assert.deepEqual([shorter.text, shorter.lastId], ["abcde", "s-5"]);
});

test("behind a missing piece nothing is believed", () => {
  const gap = answer([piece(1, 0, "ab", { lastId: "s-2" }), piece(3, 9, "z", { lastId: "s-9" }), piece(4, 2, "c")]);
  assert.deepEqual([gap.text, gap.lastId], ["abc", "s-2"]);
});

test("thoughts in tags, whose tags were text at first, are stored and kept as they are", () => {
  let before = { ...newAnswer("m", {}, 0), id: "a" };
  const pieces = [];
  const turns = (answer) => [{ ...turn("t", 1, ""), answers: [answer] }];
  for (const [i, content] of [..."\n<think>\nHm.\n</think>\nYes."].entries()) {
    const event = { type: "chunk", id: `s-${i + 1}`, chunk: { message: { content }, done: false } };
    const now = reduceAnswer(before, event, 1);
    pieces.push({ ...piece(i, 0, ""), ...pieceOf(before, now) });
    const read = answer(pieces);
    for (const name of ["text", "thinking", "thinksInText"]) assert.equal(read[name], now[name]);
    assert.equal(merge(turns(now), turns(before), () => false)[0].answers[0], now);
    before = now;
  }
  assert.deepEqual([before.thinking, before.text], ["Hm.", "\nYes."]);
});

test("a backup is read as it was written, and its answers have ended", () => {
  const chat = { ...newChat("m", NO_SETTINGS), title: "Chat" };
  const image = { id: "i", url: "data:image/png;base64,QUJD" };
  const running = { ...turn("t", 1, ""), images: [image], answers: [{ ...stored, text: "Half" }] };
  const backup = fromBackup(JSON.stringify(toBackup([{ chat, turns: [running] }], new Date(0))));
  assert.equal(backup.skipped, 0);
  const [{ turns, chat: read }] = backup.chats;
  assert.deepEqual(read, chat);
  assert.deepEqual([turns[0].answers[0].status, turns[0].answers[0].text], ["cancelled", "Half"]);
  assert.equal(turns[0].images[0].url, image.url);
  const words = { you: "You", image: (/** @type {number} */ n) => `Image ${n}` };
  assert.equal(toMarkdown(chat, turns, words), "# Chat\n\n## You\n\n*Image 1*\n\nt\n\n## \n\nHalf\n");
});
