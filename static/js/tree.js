/** The turns of a chat as a tree: an edited prompt stands beside the old one, with its own continuation. Pure. */

/** @import { Turn } from "./types.js" */

/** @typedef {{kids: Map<string, Turn[]>, parents: Map<string, string>}} Tree */

/** @type {WeakMap<Turn[], Tree>} */
const known = new WeakMap();

/** Turns by the one they follow, oldest first. @param {Turn[]} turns @returns {Tree} */
function treeOf(turns) {
  const before = known.get(turns);
  if (before) return before;
  /** @type {Tree} */
  const tree = { kids: new Map(), parents: new Map() };
  let last = "";
  for (const turn of [...turns].sort((a, b) => a.at - b.at || (a.id < b.id ? -1 : 1))) {
    // Version 1 had no tree, and what a turn followed may have been deleted: then it follows the one before it in
    // time. A parent always comes first, so that no file can make a circle.
    const parent = turn.parent === "" || tree.parents.has(turn.parent) ? turn.parent : last;
    const siblings = tree.kids.get(parent);
    if (siblings) siblings.push(turn);
    else tree.kids.set(parent, [turn]);
    tree.parents.set(turn.id, parent);
    last = turn.id;
  }
  known.set(turns, tree);
  return tree;
}

/** The turns that are shown and sent: at every fork the one that was wanted last. @param {Turn[]} [turns] @returns {Turn[]} */
export function pathOf(turns = []) {
  const { kids } = treeOf(turns);
  const path = [];
  for (let at = kids.get(""); at; at = kids.get(/** @type {Turn} */ (path.at(-1)).id))
    path.push(at.reduce((best, turn) => (turn.chosen >= best.chosen ? turn : best)));
  return path;
}

/** A turn and those that stand beside it, oldest first. @param {Turn[]} turns @param {string} id */
export const versionsOf = (turns, id) => followersOf(turns, parentOf(turns, id));

/** The turns that follow one, in every branch. @param {Turn[]} turns @param {string} id */
export const followersOf = (turns, id) => treeOf(turns).kids.get(id) ?? [];

/** The turn that another one follows, "" for the first. @param {Turn[]} turns @param {string} id */
export const parentOf = (turns, id) => treeOf(turns).parents.get(id) ?? "";
