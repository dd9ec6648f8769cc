/** V8 shares compiled code and its type feedback between functions of one text: each of ours has a name of its own. */
const counter = { next: 1 };

export function uniqueName(kind: string): string {
  return `${kind}${String(counter.next++)}`;
}
