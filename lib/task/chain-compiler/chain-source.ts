/**
 * The text of a chain's generated code: one function from the record that comes in to the encoders of the channels
 * it leaves by, with the operators in between inlined (docs/adr/0012: V8 then removes the records in between).
 * Pure: nothing is bound or run here, so that the text can be shown without a job that runs.
 */
import { InvariantError } from '../../base/assert.js';
import {
  generatesCode,
  generatesSourceCode,
  type CodeScope,
  type RecordNames,
} from '../../operators/operator-code.js';
import {
  oneLine,
  type ChainNode,
  type ChainScope,
  type ChainShape,
  type Parameter,
} from './chain-shape.js';
import { generateEdge } from './edge-source.js';

/** Beyond so many operators in one function the rest begins a function of its own: V8 optimises none over 61,440 bytecodes. */
const operatorsPerFunctionMax = 24;

export interface ChainSource {
  readonly code: string;
  readonly parameters: readonly Parameter[];
  /** Operators whose results outside records have a generated function, returned as `emitters[index]`. */
  readonly emitters: readonly number[];
}

/** Names every chain's code knows. */
export const runtimeNames = ['quantum', 'running', 'task', 'received', 'caught', 'fail'] as const;

/** @param file appears in stack traces; must be unique in the process, as V8 shares feedback between equal texts. */
export function generateChain(shape: ChainShape, file: string): ChainSource {
  return new ChainGenerator(shape, file).generate();
}

class ChainGenerator implements ChainScope {
  readonly shape: ChainShape;
  readonly #file: string;
  readonly #parameters = new Map<string, Parameter>();
  /** Functions of operators that emit from several places, by operator; in order of need. */
  readonly #emitters = new Map<number, string>();
  readonly #collectors = new Set<number>();
  /** Operators inlined into the function that is being written. */
  #inlined = 0;

  constructor(shape: ChainShape, file: string) {
    this.shape = shape;
    this.#file = file;
    for (const name of runtimeNames) this.parameter({ name, of: { kind: 'runtime' } });
  }

  generate(): ChainSource {
    const { inputs, nodes } = this.shape;
    const head = nodes[0]?.operator;
    if (head === undefined) throw new InvariantError('a chain has no operators');
    const entries: string[] = [];
    const parts: string[] = [];
    if (generatesSourceCode(head)) {
      parts.push(this.#collect());
      entries.push('collect');
    } else {
      const body = this.#function(() => this.operator(0, headNames));
      if (inputs.ring) {
        parts.push(rowsFunction(body));
        entries.push('rows');
      }
      if (inputs.direct) {
        parts.push(directFunction(body));
        entries.push('direct');
      }
    }
    this.#addEmittersOf(nodes);
    const collectors = [...this.#collectors].map((index) => collectorClass(index));
    const emitters = [...this.#emitters.keys()];
    const emitterEntries = emitters.map((index) => `${String(index)}: emit_${String(index)}`);
    const code = [
      `// Generated code of the chain "${oneLine(this.shape.name)}". Operators:`,
      ...nodes.map(
        ({ name, type }, index) => `//   ${String(index)}  ${oneLine(type)} "${oneLine(name)}"`,
      ),
      `// Given by name: ${[...this.#parameters.keys()].join(', ')}`,
      `'use strict';`,
      `/** The operator (or, behind them, the edge) whose code runs: who is to blame for what is thrown. */`,
      `let op = 0;`,
      '',
      ...parts,
      ...this.#emitters.values(),
      ...collectors,
      `return { ${[...entries, `emitters: { ${emitterEntries.join(', ')} }`].join(', ')} };`,
      `//# sourceURL=${this.#file}`,
    ].join('\n');
    return { code: indent(code), parameters: [...this.#parameters.values()], emitters };
  }

  /** Declares a parameter once; answers its name. */
  parameter(parameter: Parameter): string {
    if (!this.#parameters.has(parameter.name)) this.#parameters.set(parameter.name, parameter);
    return parameter.name;
  }

  /** Statements of one operator and all that follows it. */
  operator(index: number, record: RecordNames): string {
    const node = this.shape.nodes[index]!;
    this.#inlined += 1;
    const title = `// ${String(index)} ${oneLine(node.type)} "${oneLine(node.name)}"`;
    if (generatesCode(node.operator)) {
      return `${title}\n${node.operator.generate(this.#scope(index), record)}`;
    }
    const name = this.parameter({
      name: `operator_${String(index)}`,
      of: { kind: 'operator', operator: index },
    });
    return [
      title,
      `op = ${String(index)};`,
      `${name}.processElement(${record.value}, ${record.timestamp});`,
    ].join('\n');
  }

  /** Statements for everything that takes an operator's main output. */
  targets(index: number, record: RecordNames): string {
    const { chained, edges } = this.shape.nodes[index]!;
    const record0 = { value: record.value, timestamp: record.timestamp };
    const blocks = [
      ...chained.map((child) => this.operator(child, record0)),
      ...edges.map((edge) => generateEdge(this, edge, record0)),
    ];
    return blocks.length === 1 ? blocks[0]! : blocks.map((text) => `{\n${text}\n}`).join('\n');
  }

  #scope(index: number): CodeScope {
    const suffix = String(index);
    let isInline = false;
    return {
      operatorName: this.shape.nodes[index]!.name,
      blame: `op = ${suffix};`,
      bind: (hint, value) =>
        this.parameter({ name: `${hint}_${suffix}`, of: { kind: 'value', value } }),
      local: (hint) => `${hint}_${suffix}`,
      emit: (record) => {
        if (isInline) throw new InvariantError('an operator emits inline twice', { index });
        isInline = true;
        if (this.#inlined < operatorsPerFunctionMax && !this.#emitters.has(index)) {
          return this.targets(index, record);
        }
        return `${this.#emitter(index)}(${record.value}, ${record.timestamp});`;
      },
      emitter: () => this.#emitter(index),
      collector: () => {
        this.#emitter(index);
        this.#collectors.add(index);
        return `out_${suffix}`;
      },
    };
  }

  #emitter(index: number): string {
    const name = `emit_${String(index)}`;
    if (!this.#emitters.has(index)) {
      // Claimed before its body is written: the body may need further ones.
      this.#emitters.set(index, '');
      const body = this.#function(() =>
        this.targets(index, { value: `value`, timestamp: 'timestamp' }),
      );
      this.#emitters.set(index, emitterFunction(index, body));
    }
    return name;
  }

  /** Every operator that may emit outside of records, which is every one that is not inlined, has its function. */
  #addEmittersOf(nodes: readonly ChainNode[]): void {
    nodes.forEach(({ operator, chained, edges }, index) => {
      if (chained.length + edges.length === 0) return;
      if (!generatesCode(operator) && !generatesSourceCode(operator)) this.#emitter(index);
    });
  }

  #collect(): string {
    const head = this.shape.nodes[0]!.operator;
    if (!generatesSourceCode(head)) throw new InvariantError('the head is no source');
    const body = this.#function(() => {
      this.#inlined += 1;
      return head.generateCollect(
        this.#scope(0),
        { value: 'value', timestamp: 'recordTimestamp' },
        'splitId',
      );
    });
    return `function collect(value, recordTimestamp, splitId) {
try {
${body}
} catch (error) {
throw caught(error, op);
}
if (--quantum.budget <= 0) quantum.tick();
}
`;
  }

  #function(body: () => string): string {
    const before = this.#inlined;
    this.#inlined = 0;
    const text = body();
    this.#inlined = before;
    return text;
  }
}

const headNames: RecordNames = { value: 'value', timestamp: 'timestamp', keyHash: 'keyHash' };

function rowsFunction(body: string): string {
  return `function rows(batch, from) {
const { count } = batch;
let i = from;
try {
while (i < count) {
op = 0;
const value = batch.value(i);
const timestamp = batch.timestamp(i);
i += 1;
${declareKeyHash(body)}${body}
if (--quantum.budget <= 0) quantum.tick();
if (quantum.isOver) break;
}
} catch (error) {
throw caught(error, op);
}
received[0] += i - from;
return i;
}
`;
}

function directFunction(body: string): string {
  return `function direct(value, timestamp, keyHash) {
const before = running[0];
running[0] = task;
received[0] += 1;
try {
${body}
} catch (error) {
fail(caught(error, op));
}
running[0] = before;
}
`;
}

function emitterFunction(index: number, body: string): string {
  return `function emit_${String(index)}(value, timestamp) {
try {
${body}
} catch (error) {
throw caught(error, op);
}
op = ${String(index)};
}
`;
}

function collectorClass(index: number): string {
  const suffix = String(index);
  return `class Out_${suffix} {
timestamp = -Infinity;
collect(value) {
emit_${suffix}(value, this.timestamp);
}
}
const out_${suffix} = new Out_${suffix}();
`;
}

/** Only a direct caller has hashed the key. */
function declareKeyHash(body: string): string {
  return body.includes('keyHash') ? 'const keyHash = undefined;\n' : '';
}

/** Two spaces for every open brace. NB: generated lines open and close braces at their ends only. */
function indent(code: string): string {
  let depth = 0;
  return code
    .split('\n')
    .map((line) => {
      if (line.startsWith('}')) depth -= 1;
      const text = line === '' ? '' : '  '.repeat(Math.max(0, depth)) + line;
      if (line.endsWith('{')) depth += 1;
      return text;
    })
    .join('\n');
}
