/** Chats as a file: one JSON with everything, and one chat as Markdown. Pure. */
import { reviveChat, reviveTurn } from "./revive.js";
import { settled, shownAnswer } from "./state.js";
import { pathOf } from "./tree.js";

/** @import { Chat, Turn } from "./types.js" */

const FORMAT = "ollama-sse-gateway-chats";

/** @param {{chat: Chat, turns: Turn[]}[]} all @param {Date} now */
export const toBackup = (all, now) => ({
  format: FORMAT,
  version: 1,
  exported: now.toISOString(),
  chats: all.map(({ chat, turns }) => ({
    ...chat,
    turns: turns.map((turn) => ({ ...turn, images: turn.images.map(({ url }) => url) })),
  })),
});

/**
 * What a file has that can be shown. Answers that ran when it was written have ended since.
 * @param {string} text @returns {{chats: {chat: Chat, turns: Turn[]}[], skipped: number} | null} null: not a backup
 */
export function fromBackup(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return null;
  }
  if (data?.format !== FORMAT || !Array.isArray(data.chats)) return null;
  const chats = [];
  let skipped = 0;
  for (const raw of data.chats) {
    const chat = reviveChat(raw);
    const given = Array.isArray(raw?.turns) ? raw.turns : [];
    const turns = given.map(reviveTurn).filter((/** @type {Turn | null} */ turn) => turn !== null);
    skipped += given.length - turns.length;
    if (chat) chats.push({ chat: titled(chat, turns), turns: turns.map(settled) });
    else skipped++;
  }
  return { chats, skipped };
}

/** A chat without a title could not be clicked. @param {Chat} chat @param {Turn[]} turns */
const titled = (chat, turns) => (chat.title ? chat : { ...chat, title: turns[0]?.prompt.slice(0, 60) || "…" });

/**
 * The branch on display; what was attached is named.
 * @param {Chat} chat @param {Turn[]} turns @param {{you: string, image: (n: number) => string}} words
 */
export function toMarkdown(chat, turns, { you, image }) {
  const parts = pathOf(turns).flatMap((turn) => {
    const answer = shownAnswer(turn);
    const attached = [...turn.images.map((_, i) => image(i + 1)), ...turn.files.map(({ name }) => name)];
    const asked = [`## ${you}`, ...attached.map((name) => `*${name}*`), turn.prompt].filter(Boolean).join("\n\n");
    return answer ? [asked, `## ${answer.model}`, answer.text] : [asked];
  });
  return `${[`# ${chat.title}`, ...parts].join("\n\n").trim()}\n`;
}
