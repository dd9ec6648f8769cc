/**
 * `value` and `timestamp` of one schema: a literal whose fields are read from the columns, so that V8 leaves out
 * fields (or the whole object) that the code around never looks at.
 */
import type { BatchLayout, Column, LeafColumns } from './columnar-layout.js';
import { ColumnarReader, type ColumnarReaderClass } from './columnar-reader.js';
import { uniqueName } from './generated-name.js';
import type { RootNode, SchemaNode } from './record-schema.js';

export function generateReader(layout: BatchLayout): ColumnarReaderClass {
  const source = new ValueCode(layout).source(uniqueName('ColumnarReader'));
  // eslint-disable-next-line @typescript-eslint/no-implied-eval -- the text is ours, names of fields are quoted
  const make = new Function('Base', 'layout', source) as (
    ...parameters: unknown[]
  ) => ColumnarReaderClass;
  return make(ColumnarReader, layout);
}

class ValueCode {
  readonly #layout: BatchLayout;
  #lines: string[] = [];
  #leaf = 0;
  /** Variables that hold where the string or the `any` value in hand begins. */
  #text = 'text0';
  #any = 'any0';
  #variables = 0;

  constructor(layout: BatchLayout) {
    this.#layout = layout;
  }

  source(name: string): string {
    const { columns, textStarts, anyStarts, schema } = this.#layout;
    const bases = columns.map((column) => `this.${baseOf(column)} = 0;`);
    const body = this.#root(schema.root);
    return [
      "'use strict';",
      `return class ${name} extends Base {`,
      '  constructor() {',
      '    super(layout);',
      ...bases.map((line) => `    ${line}`),
      '  }',
      '  place(start, count) {',
      ...columns.map((column) => `    ${this.#place(column)}`),
      '  }',
      '  value(i) {',
      ...[...this.#views(), ...this.#begin(), ...body].map((line) => `    ${line}`),
      '  }',
      `  timestamp(i) { return ${this.#timestamp()}; }`,
      `  textStart(i) { return ${textStarts === undefined ? '0' : `this.${this.#at(textStarts)}`}; }`,
      `  anyStart(i) { return ${anyStarts === undefined ? '0' : `this.${this.#at(anyStarts)}`}; }`,
      '};',
      `//# sourceURL=millrace/codec/${name}.js`,
    ].join('\n');
  }

  #place(column: Column): string {
    const { header } = this.#layout;
    const fixed = header.byteLength + column.beforeFixed;
    const start = `start + ${String(fixed)} + count * ${String(column.beforePerRecord)}`;
    return `this.${baseOf(column)} = (${start}) / ${String(column.bytes)};`;
  }

  #views(): string[] {
    const { columns, timestamps } = this.#layout;
    const used = columns.filter((column) => column !== timestamps).map((column) => column.view);
    return [...new Set(used)].map((view) => `const ${view} = this.${view};`);
  }

  #begin(): string[] {
    const { textStarts, anyStarts } = this.#layout;
    const lines: string[] = [];
    if (textStarts !== undefined) {
      lines.push(
        'if (i - this.pageFirst >>> 0 >= this.pageRecords) this.turnPage(i);',
        'const page = this.page;',
        'const pageStart = this.pageStart;',
        `const text0 = ${this.#at(textStarts)} - pageStart;`,
      );
    }
    if (anyStarts !== undefined) lines.push(`const any0 = ${this.#at(anyStarts)};`);
    return lines;
  }

  #timestamp(): string {
    const column = this.#layout.timestamps;
    if (column === undefined) return '-Infinity';
    const value = `this.${this.#at(column)}`;
    return column.view === 'i32' ? `this.firstTimestamp + ${value}` : value;
  }

  #root(root: RootNode): string[] {
    if (root.kind !== 'union') return this.#shape(root);
    return [
      `switch (${this.#at(this.#layout.shape!)}) {`,
      ...root.members.flatMap((member, k) => [
        `case ${String(k)}: {`,
        ...this.#shape(member).map((line) => `  ${line}`),
        '}',
      ]),
      '}',
      'return this.unknownShape();',
    ];
  }

  #shape(node: SchemaNode): string[] {
    this.#lines = [];
    this.#text = 'text0';
    this.#any = 'any0';
    const value = this.#node(node);
    return [...this.#lines, `return ${value};`];
  }

  #node(node: SchemaNode): string {
    if (node.kind !== 'object') return this.#leafValue(this.#layout.leaves[this.#leaf++]!);
    const fields = node.fields.map(
      ([name, field]) => `${JSON.stringify(name)}: ${this.#node(field)}`,
    );
    return `{ ${fields.join(', ')} }`;
  }

  #leafValue(columns: LeafColumns): string {
    const present = this.#present(columns);
    if (columns.presence === undefined) return present;
    const code = this.#at(columns.presence);
    return `(${code} === 0 ? ${present} : ${code} === 1 ? null : undefined)`;
  }

  #present(columns: LeafColumns): string {
    const value = columns.value === undefined ? '' : this.#at(columns.value);
    switch (columns.leaf.kind) {
      case 'boolean':
        return columns.leaf.isNullable
          ? `(${value} === 1 ? true : ${value} === 0 ? false : ${value} === 2 ? null : undefined)`
          : `${value} === 1`;
      case 'date':
        return `new Date(${value})`;
      case 'category':
        return `this.categories[${String(columns.category)}][${value}]`;
      case 'string':
        return this.#string(columns);
      case 'any':
        return this.#anyValue(columns);
      default:
        return value;
    }
  }

  #string({ end }: LeafColumns): string {
    const start = this.#text;
    const past = end === undefined ? this.#at(this.#layout.textStarts!, 1) : this.#at(end);
    this.#text = `text${String((this.#variables += 1))}`;
    this.#lines.push(`const ${this.#text} = ${past} - pageStart;`);
    return `page.substring(${start}, ${this.#text})`;
  }

  #anyValue({ end }: LeafColumns): string {
    const start = this.#any;
    const past = end === undefined ? this.#at(this.#layout.anyStarts!, 1) : this.#at(end);
    this.#any = `any${String((this.#variables += 1))}`;
    this.#lines.push(`const ${this.#any} = ${past};`);
    return `this.decodeAny(${start}, ${this.#any})`;
  }

  #at(column: Column, ahead = 0): string {
    const plus = ahead === 0 ? '' : ` + ${String(ahead)}`;
    return `${column.view}[this.${baseOf(column)} + i${plus}]`;
  }
}

const baseOf = (column: Column): string => `at${String(column.index)}`;
