/** What two sides know of the same turns, and what an answer has that it had not before. Pure. */
import { numberOf } from "./answer.js";
import { isActive } from "./state.js";

/** @import { Answer, Turn } from "./types.js" */

/** @param {Answer} before @param {Answer} now  the same one, grown */
export function pieceOf(before, now) {
  const patch = Object.fromEntries(
    Object.entries(now).filter(
      ([name, value]) => name !== "text" && name !== "thinking" && value !== before[/** @type {keyof Answer} */ (name)],
    ),
  );
  // What looked like text may have been the tag of thoughts: then it is all written again.
  const textAt = now.text.startsWith(before.text) ? before.text.length : 0;
  const thinkingAt = now.thinking.startsWith(before.thinking) ? before.thinking.length : 0;
  return {
    number: performance.timeOrigin + performance.now(),
    textAt,
    text: now.text.slice(textAt),
    thinkingAt,
    thinking: now.thinking.slice(thinkingAt),
    patch,
  };
}

/**
 * What is stored, with the answers that have come further here, and those whose begin is still being written.
 * @param {Turn[]} memory @param {Turn[]} stored @param {(answer: Answer) => boolean} begins
 */
export function merge(memory, stored, begins) {
  const merged = stored.map((turn) => {
    const known = memory.find(({ id }) => id === turn.id);
    if (!known) return turn;
    const answers = turn.answers.map((answer) => {
      const own = known.answers.find(({ id }) => id === answer.id);
      return own && further(own, answer) ? own : answer;
    });
    const fresh = known.answers.filter((own) => begins(own) && !answers.some(({ id }) => id === own.id));
    const images = known.images.length === turn.images.length ? known.images : turn.images;
    return { ...turn, answers: [...answers, ...fresh], shown: fresh.length ? known.shown : turn.shown, images };
  });
  const fresh = memory.filter((turn) => turn.answers.some(begins) && !stored.some(({ id }) => id === turn.id));
  return [...merged, ...fresh].sort((a, b) => a.at - b.at);
}

/** @param {Answer} own @param {Answer} stored */
const further = (own, stored) =>
  isActive(stored) && (!isActive(own) || numberOf(own.lastId) >= numberOf(stored.lastId));
