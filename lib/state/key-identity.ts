/**
 * The identity of a key: a primitive that a JavaScript Map compares exactly as keys are equal. Numbers,
 * strings, booleans, bigints and null are their own (a Map already takes -0 for 0 and every NaN for one, and
 * tells 1, '1', 1n and true apart); tuples become a string that no other key has.
 */
import { unsupportedKey } from './key-group.js';

export type KeyIdentity = string | number | boolean | bigint | null;

/** Begins the identities that are encoded: tuples, and strings that begin with it themselves. */
const marker = '\u0000';
const markerCode = 0;

export function identityOf(key: unknown): KeyIdentity {
  switch (typeof key) {
    case 'string':
      return key.charCodeAt(0) === markerCode ? `${marker}s${key}` : key;
    case 'number':
    case 'boolean':
    case 'bigint':
      return key;
    case 'object':
      if (key === null) return null;
      if (Array.isArray(key)) return `${marker}${encodePart(key)}`;
      break;
    default:
  }
  throw unsupportedKey(key);
}

/** The key again; -0 came in as 0. */
export function keyOf(identity: KeyIdentity): unknown {
  if (typeof identity !== 'string' || identity.charCodeAt(0) !== markerCode) {
    return identity === 0 ? 0 : identity;
  }
  if (identity[1] === 's') return identity.slice(2);
  return new PartReader(identity, 1).read();
}

function encodePart(part: unknown): string {
  switch (typeof part) {
    case 'string':
      return `s${String(part.length)}:${part}`;
    case 'number':
      return `n${String(part)};`;
    case 'boolean':
      return part ? '1' : '0';
    case 'bigint':
      return `b${String(part)};`;
    case 'object':
      if (part === null) return '_';
      if (Array.isArray(part)) return `t${String(part.length)}:${part.map(encodePart).join('')}`;
      break;
    default:
  }
  throw unsupportedKey(part);
}

class PartReader {
  readonly #text: string;
  #at: number;

  constructor(text: string, at: number) {
    this.#text = text;
    this.#at = at;
  }

  read(): unknown {
    const type = this.#text[this.#at];
    this.#at += 1;
    switch (type) {
      case 's':
        return this.#take(Number(this.#until(':')));
      case 'n':
        return Number(this.#until(';'));
      case 'b':
        return BigInt(this.#until(';'));
      case 't':
        return Array.from({ length: Number(this.#until(':')) }, () => this.read());
      case '_':
        return null;
      default:
        return type === '1';
    }
  }

  #until(end: string): string {
    const text = this.#text.slice(this.#at, this.#text.indexOf(end, this.#at));
    this.#at += text.length + 1;
    return text;
  }

  #take(length: number): string {
    const text = this.#text.slice(this.#at, this.#at + length);
    this.#at += length;
    return text;
  }
}
