/**
 * A schema as the text that heads every batch (JSON): `[flags, root]`; flags: timestamps `n`one, `o`ffset or
 * e`x`act, then `w` for wide text; root: a letter for a type, with `?` when nullable, or names and nodes by turns,
 * or such arrays of the shapes of a union.
 * NB: part of the wire format.
 */
import {
  isColumnar,
  type BatchSchema,
  type FieldType,
  type LeafNode,
  type ObjectNode,
  type RootNode,
  type SchemaNode,
  type TimestampKind,
} from './record-schema.js';

/** More than writers nest; bounds what damaged bytes can cost. */
const depthMax = 16;

const letters: Readonly<Record<FieldType, string>> = {
  int32: 'i',
  number: 'f',
  boolean: 'b',
  string: 's',
  category: 'c',
  bigint: 'l',
  date: 'd',
  any: 'a',
};
const kinds = new Map(Object.entries(letters).map(([kind, letter]) => [letter, kind as FieldType]));

const timestampLetters: Readonly<Record<TimestampKind, string>> = {
  none: 'n',
  offset: 'o',
  exact: 'x',
};
const timestampKinds = new Map(
  Object.entries(timestampLetters).map(([kind, letter]) => [letter, kind as TimestampKind]),
);

type Json = string | readonly Json[];

export function formatSchema(schema: BatchSchema): string {
  const flags = timestampLetters[schema.timestamps] + (schema.isWideText ? 'w' : '');
  return JSON.stringify([flags, toJson(schema.root)]);
}

function toJson(node: RootNode): Json {
  if (node.kind === 'union') return node.members.map(toJson);
  if (node.kind !== 'object') return letters[node.kind] + (node.isNullable ? '?' : '');
  return node.fields.flatMap(([name, field]) => [name, toJson(field)]);
}

/** @returns undefined for a text that `formatSchema` does not make. */
export function parseSchema(text: string): BatchSchema | undefined {
  try {
    const [flags, root] = JSON.parse(text) as [string, Json];
    const timestamps = timestampKinds.get(flags[0]!);
    const node = rootFromJson(root);
    if (timestamps === undefined || node === undefined || !isColumnar(node)) return undefined;
    const schema = { root: node, timestamps, isWideText: flags[1] === 'w' };
    return formatSchema(schema) === text ? schema : undefined;
  } catch {
    return undefined;
  }
}

function rootFromJson(json: Json): RootNode | undefined {
  if (typeof json === 'string' || typeof json[0] !== 'object') return fromJson(json, 0);
  const members = json.map((member) => fromJson(member, 0));
  return members.every((member): member is ObjectNode => member?.kind === 'object')
    ? { kind: 'union', members }
    : undefined;
}

function fromJson(json: Json, depth: number): SchemaNode | undefined {
  if (typeof json === 'string') return fromLetter(json);
  if (!Array.isArray(json) || json.length % 2 !== 0 || depth > depthMax) return undefined;
  const fields: [string, SchemaNode][] = [];
  for (let i = 0; i < json.length; i += 2) {
    const name = json[i] as unknown;
    const node = fromJson(json[i + 1] as Json, depth + 1);
    if (typeof name !== 'string' || name === '__proto__' || node === undefined) return undefined;
    fields.push([name, node]);
  }
  return { kind: 'object', fields };
}

function fromLetter(text: string): LeafNode | undefined {
  const kind = kinds.get(text[0]!);
  const isNullable = text[1] === '?';
  return kind === undefined || (kind === 'any' && isNullable) ? undefined : { kind, isNullable };
}
