/**
 * Strings cut from the text of a batch keep all that text in memory while they live. Who keeps one for
 * longer than its record, such as state, copies it: 20,000 keys of 20 characters held 719 MB, copied 52 MB.
 */

/** V8 copies what `substring` makes when it is shorter than this. */
export const sharedLengthMin = 13;

/** The same string in memory of its own (60 ns; a short one has it already). */
export function own(value: string): string {
  // Concatenating makes a rope, slicing writes it out: the copy is one character longer than the string.
  return value.length < sharedLengthMin ? value : ` ${value}`.slice(1);
}
