import { InvariantError } from './assert.js';

/** Legal transitions of a state machine: from each state, the states it may go to. */
export type Transitions<S extends string> = Readonly<Record<S, readonly S[]>>;

export function defineTransitions<S extends string>(table: Transitions<S>): Transitions<S> {
  return table;
}

/** Throws InvariantError on a transition that is not in the table. */
export function checkTransition<S extends string>(
  what: string,
  table: Transitions<S>,
  from: S,
  to: S,
): void {
  if (!table[from].includes(to))
    throw new InvariantError(`${what}: illegal transition ${from} -> ${to}`);
}

export function isTerminal<S extends string>(table: Transitions<S>, state: S): boolean {
  return table[state].length === 0;
}
