/**
 * Digests of user functions by their source text: a slot that re-runs main from the same bundle must
 * find the same functions. Values a closure captured are not in its text; they are pinned instead.
 */
import { createHash } from 'node:crypto';

/**
 * Library objects (connectors) name their user functions under this key, so that their digest does not
 * change with the version of the library.
 */
export const userFunctions = Symbol.for('millrace.user-functions');

/** Hex SHA-256 over the source texts, in order. */
export function functionDigest(functions: readonly unknown[]): string {
  const hash = createHash('sha256');
  for (const text of functions.map(sourceText)) hash.update(`${text.length}:${text};`);
  return hash.digest('hex');
}

/** A function's text; of an object, the text of its classes and of the functions it holds itself. */
function sourceText(value: unknown): string {
  if (typeof value === 'function') return Function.prototype.toString.call(value);
  if (typeof value !== 'object' || value === null) return '';
  if (userFunctions in value && Array.isArray(value[userFunctions])) {
    return `${value.constructor.name}:${functionDigest(value[userFunctions])}`;
  }
  const texts: string[] = [];
  for (const key of Object.keys(value).sort()) {
    const member = (value as Record<string, unknown>)[key];
    if (typeof member === 'function') texts.push(`${key}=${sourceText(member)}`);
  }
  let prototype: unknown = Object.getPrototypeOf(value);
  while (typeof prototype === 'object' && prototype !== null && prototype !== Object.prototype) {
    texts.push(sourceText(prototype.constructor));
    prototype = Object.getPrototypeOf(prototype);
  }
  return texts.join(';');
}
