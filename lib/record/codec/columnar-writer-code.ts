/**
 * The `append` of one schema: reads every field once, checks its type and that the keys are those of the schema in
 * order, and writes into the columns. Nothing counts until the last line, so a misfit leaves the batch as it was.
 *
 * NB: symbol keys are looked for where a schema is learned and at the first record of each batch: for every
 * record the check would cost more than all the rest.
 */
import type { BatchLayout, Column, LeafColumns } from './columnar-layout.js';
import {
  ColumnarWriter,
  recordCapacity,
  scratchOffsets,
  type ColumnarWriterClass,
} from './columnar-writer.js';
import { uniqueName } from './generated-name.js';
import type { ObjectNode, SchemaNode } from './record-schema.js';

/** Keys that are compared with variables, not elements of an array. */
const rotatedKeysMax = 10;

const hasSymbols = (object: object): boolean => Object.getOwnPropertySymbols(object).length > 0;

const helpers = {
  Base: ColumnarWriter,
  getPrototypeOf: Object.getPrototypeOf,
  plain: Object.prototype,
  date: Date.prototype,
  getTime: Object.getOwnPropertyDescriptor(Date.prototype, 'getTime')!.value as unknown,
  isMinusZero: (value: number): boolean => Object.is(value, -0),
  hasSymbols,
};

export function generateWriter(layout: BatchLayout, bufferBytes: number): ColumnarWriterClass {
  const capacity = recordCapacity(layout, bufferBytes);
  const code = new AppendCode(layout, capacity);
  const names = Object.keys(helpers);
  const source = code.source(uniqueName('ColumnarWriter'));
  // eslint-disable-next-line @typescript-eslint/no-implied-eval -- the text is ours, names of fields are quoted
  const make = new Function(...names, 'layout', 'capacity', source) as (
    ...parameters: unknown[]
  ) => ColumnarWriterClass;
  return make(...Object.values(helpers), layout, capacity);
}

class AppendCode {
  /** Arrays of the keys of objects with many. */
  readonly #keys: string[] = [];
  readonly #layout: BatchLayout;
  readonly #capacity: number;
  readonly #scratch: readonly number[];
  #lines: string[] = [];
  /** Variables with the strings of the record. */
  #texts: string[] = [];
  /** What a record that does not fit leaves. */
  #label = 'fits';
  #leaf = 0;
  #variables = 0;

  constructor(layout: BatchLayout, capacity: number) {
    this.#layout = layout;
    this.#capacity = capacity;
    this.#scratch = scratchOffsets(layout, capacity);
  }

  source(name: string): string {
    const body = [
      this.#misfitIf(`i >= ${String(this.#capacity)}`),
      ...this.#views(),
      ...this.#timestamp(),
      ...this.#root(),
    ];
    return [
      "'use strict';",
      ...this.#keys,
      `return class ${name} extends Base {`,
      '  constructor(options) { super(layout, capacity, options); }',
      '  append(value, timestamp) {',
      '    const i = this.count;',
      '    fits: {',
      ...body.map((line) => `      ${line}`),
      '    }',
      '    return this.misfit(value, timestamp);',
      '  }',
      '};',
      `//# sourceURL=millrace/codec/${name}.js`,
    ].join('\n');
  }

  #views(): string[] {
    const used = new Set(this.#layout.columns.map((column) => column.view));
    return [...used].map((view) => `const ${view} = this.${view};`);
  }

  #timestamp(): string[] {
    const column = this.#layout.timestamps;
    if (column === undefined) {
      return [this.#misfitIf('timestamp !== -Infinity')];
    }
    if (column.view === 'f64') return [`${this.#at(column)} = timestamp;`];
    return [
      'if (i === 0) this.firstTimestamp = timestamp;',
      'const first = this.firstTimestamp;',
      'const offset = timestamp - first;',
      this.#misfitIf(
        'offset !== (offset | 0) || first + offset !== timestamp || isMinusZero(timestamp)',
      ),
      `${this.#at(column)} = offset;`,
    ];
  }

  #root(): string[] {
    const { root } = this.#layout.schema;
    if (root.kind !== 'union') return this.#shape(root, []);
    // The next shape is tried when a record is not of one.
    this.#label = 'shape';
    const { shape } = this.#layout;
    return root.members.flatMap((member, k) => [
      'shape: {',
      ...this.#shape(member, [`${this.#at(shape!)} = ${String(k)};`]),
      '}',
    ]);
  }

  #shape(node: SchemaNode, also: readonly string[]): string[] {
    this.#lines = [];
    this.#texts = [];
    this.#node(node, 'value');
    return [...this.#begin(), ...this.#lines, ...also, ...this.#end()];
  }

  #begin(): string[] {
    const { textStarts, anyStarts } = this.#layout;
    return [
      ...(this.#keys.length > 0 ? ['let k = 0;'] : []),
      ...(textStarts === undefined ? [] : ['let end = this.textLength;']),
      ...(this.#layout.categories === 0 ? [] : ['const categories = this.categories;']),
      ...(anyStarts === undefined ? [] : ['let anyEnd = this.anyLength;']),
    ];
  }

  #node(node: SchemaNode, expression: string): void {
    if (node.kind === 'object') this.#object(node, expression);
    else this.#leafValue(this.#layout.leaves[this.#leaf++]!, this.#variable(expression));
  }

  #object(node: ObjectNode, expression: string): void {
    const value = expression === 'value' ? expression : this.#variable(expression);
    this.#lines.push(
      this.#misfitIf(
        `typeof ${value} !== 'object' || ${value} === null || getPrototypeOf(${value}) !== plain`,
      ),
      ...this.#checkKeys(
        value,
        node.fields.map(([name]) => JSON.stringify(name)),
      ),
      this.#misfitIf(`i === 0 && hasSymbols(${value})`),
    );
    for (const [name, field] of node.fields) {
      this.#node(field, `${value}[${JSON.stringify(name)}]`);
    }
  }

  /**
   * The keys in order, no more and no fewer. Variables that move up by one with each key are twice as fast as
   * counting through an array (13 ns against 27 for 7 keys), until there are too many for registers.
   */
  #checkKeys(value: string, names: readonly string[]): string[] {
    const misfit = `break ${this.#label};`;
    if (names.length === 0) return [`for (const key in ${value}) ${misfit}`];
    if (names.length > rotatedKeysMax) {
      const keys = `keys${String(this.#keys.length)}`;
      this.#keys.push(`const ${keys} = [${names.join(', ')}];`);
      return [
        'k = 0;',
        `for (const key in ${value}) if (key !== ${keys}[k++]) ${misfit}`,
        this.#misfitIf(`k !== ${String(names.length)}`),
      ];
    }
    const moves = names.map((_, n) =>
      n === names.length - 1
        ? `key${String(n)} = undefined;`
        : `key${String(n)} = key${String(n + 1)};`,
    );
    return [
      '{',
      `  let ${names.map((name, n) => `key${String(n)} = ${name}`).join(', ')};`,
      `  for (const key in ${value}) {`,
      `    if (key !== key0) ${misfit}`,
      `    ${moves.join(' ')}`,
      '  }',
      `  ${this.#misfitIf('key0 !== undefined')}`,
      '}',
    ];
  }

  #leafValue(columns: LeafColumns, x: string): void {
    const { leaf, presence } = columns;
    if (leaf.kind === 'boolean') this.#boolean(columns, x);
    else if (presence === undefined) this.#present(columns, x);
    else {
      this.#lines.push(`if (${x} === null || ${x} === undefined) {`);
      this.#lines.push(`${this.#at(presence)} = ${x} === null ? 1 : 2;`);
      if (columns.end !== undefined) this.#lines.push(`${this.#at(columns.end)} = end;`);
      if (columns.value !== undefined) {
        this.#lines.push(`${this.#at(columns.value)} = ${leaf.kind === 'bigint' ? '0n' : '0'};`);
      }
      if (leaf.kind === 'string') {
        // The text of the record is concatenated at the end.
        const text = `text${String(this.#texts.length)}`;
        this.#lines.unshift(`let ${text} = '';`);
        this.#lines.push('} else {', `${this.#at(presence)} = 0;`);
        this.#string(columns, x);
        this.#texts.pop();
        this.#lines.push(`${text} = ${x};`);
        this.#texts.push(text);
      } else {
        this.#lines.push('} else {', `${this.#at(presence)} = 0;`);
        this.#present(columns, x);
      }
      this.#lines.push('}');
    }
  }

  #boolean({ leaf, value }: LeafColumns, x: string): void {
    const others = leaf.isNullable ? `${x} === null ? 2 : ${x} === undefined ? 3 : 4` : '4';
    const code = this.#variable(`${x} === true ? 1 : ${x} === false ? 0 : ${others}`);
    this.#lines.push(this.#misfitIf(`${code} === 4`), `${this.#at(value!)} = ${code};`);
  }

  #category({ category, value }: LeafColumns, x: string): void {
    const id = `id${String(category)}`;
    const field = String(category);
    this.#lines.push(
      this.#misfitIf(`typeof ${x} !== 'string'`),
      `let ${id} = categories[${field}].get(${x});`,
      `if (${id} === undefined) {`,
      `  ${id} = this.addCategory(${field}, ${String(this.#leaf - 1)}, ${x});`,
      `  ${this.#misfitIf(`${id} === undefined`)}`,
      '}',
      `${this.#at(value!)} = ${id};`,
    );
  }

  #present(columns: LeafColumns, x: string): void {
    const value = columns.value === undefined ? '' : this.#at(columns.value);
    switch (columns.leaf.kind) {
      case 'int32':
        this.#lines.push(
          this.#misfitIf(`typeof ${x} !== 'number' || (${x} | 0) !== ${x} || isMinusZero(${x})`),
          `${value} = ${x};`,
        );
        break;
      case 'number':
        this.#lines.push(this.#misfitIf(`typeof ${x} !== 'number'`), `${value} = ${x};`);
        break;
      case 'bigint':
        this.#lines.push(
          this.#misfitIf(`typeof ${x} !== 'bigint' || BigInt.asIntN(64, ${x}) !== ${x}`),
          `${value} = ${x};`,
        );
        break;
      case 'date':
        this.#lines.push(
          this.#misfitIf(
            `typeof ${x} !== 'object' || ${x} === null || getPrototypeOf(${x}) !== date`,
          ),
          `${value} = getTime.call(${x});`,
        );
        break;
      case 'category':
        this.#category(columns, x);
        break;
      case 'string':
        this.#string(columns, x);
        break;
      default:
        this.#any(columns, x);
    }
  }

  #string({ end }: LeafColumns, x: string): void {
    this.#lines.push(this.#misfitIf(`typeof ${x} !== 'string'`), `end += ${x}.length;`);
    if (!this.#layout.schema.isWideText) this.#lines.push(this.#misfitIf('end > 65535'));
    if (end !== undefined) this.#lines.push(`${this.#at(end)} = end;`);
    this.#texts.push(x);
  }

  #any({ end }: LeafColumns, x: string): void {
    this.#lines.push(`anyEnd = this.putAny(${x}, anyEnd, value);`);
    if (end !== undefined) this.#lines.push(`${this.#at(end)} = anyEnd;`);
  }

  #end(): string[] {
    const { textStarts, anyStarts, bytesPerRecord } = this.#layout;
    const lines: string[] = [];
    let used = `(i + 1) * ${String(Math.max(1, bytesPerRecord))}`;
    if (textStarts !== undefined) {
      lines.push(`${this.#at(textStarts, 1)} = end;`);
      if (this.#texts.length > 0) {
        lines.push(`this.text += ${this.#texts.join(' + ')};`, 'this.textLength = end;');
      }
      used += ' + end';
    }
    if (anyStarts !== undefined) {
      lines.push(`${this.#at(anyStarts, 1)} = anyEnd;`, 'this.anyLength = anyEnd;');
      used += ' + anyEnd';
    }
    return [...lines, 'this.count = i + 1;', `return ${used} >= this.limit;`];
  }

  #at(column: Column, ahead = 0): string {
    const base = this.#scratch[column.index]! / column.bytes + ahead;
    return `${column.view}[${String(base)} + i]`;
  }

  #misfitIf(condition: string): string {
    return `if (${condition}) break ${this.#label};`;
  }

  #variable(expression: string): string {
    const name = `x${String((this.#variables += 1))}`;
    this.#lines.push(`const ${name} = ${expression};`);
    return name;
  }
}
