/** Values that enter state: their strings are copied off the text they were cut from (see owned-strings.ts). */

import { own, sharedLengthMin } from '../record/codec/owned-strings.js';

/**
 * The value with strings of its own: itself, or those of the first level of an array or plain object, which is
 * copied when it has such strings. What is deeper stays as it is.
 * @param before the value it replaces: strings equal to its own are taken from there, which is cheaper
 */
export function ownStrings(value: unknown, before: unknown): unknown {
  if (typeof value === 'string') return own(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return ownElements(value);
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  // One that was changed in place shows no more which of its strings are new.
  const isOther = typeof before === 'object' && before !== null && before !== value;
  return ownFields(value as Fields, isOther ? before : none);
}

/** Longer arrays are lists, which would be searched at each update. */
const elementsMax = 64;

function ownElements(array: unknown[]): unknown[] {
  const isPlain = array.length <= elementsMax && Object.getPrototypeOf(array) === Array.prototype;
  if (!isPlain || !array.some(isLong)) return array;
  // One with properties beside its elements stays as it is, to be refused by name when it is encoded.
  return Object.keys(array).length > array.length ? array : array.map(ownLong);
}

type Fields = Record<string, unknown>;
const none: Fields = {};

function ownFields(value: Fields, before: object): Fields {
  let copy: Fields | undefined;
  for (const name in value) {
    const field = value[name];
    if (typeof field !== 'string' || field.length < sharedLengthMin) continue;
    copy ??= { ...value };
    const old = (before as Fields)[name];
    copy[name] = old === field ? old : own(field);
  }
  return copy ?? value;
}

function isLong(value: unknown): boolean {
  return typeof value === 'string' && value.length >= sharedLengthMin;
}

function ownLong(value: unknown): unknown {
  return typeof value === 'string' ? own(value) : value;
}
