/** The code of an edge: which channel a record takes, and the call into the consumer or the channel's encoder. */
import type { RecordNames } from '../../operators/operator-code.js';
import { oneLine, type ChainScope, type EdgePart, type EdgeShape } from './chain-shape.js';

/** Statements that send one record over the edge. */
export function generateEdge(chain: ChainScope, index: number, record: RecordNames): string {
  const shape = chain.shape.edges[index]!;
  const names = new EdgeNames(chain, index);
  const owner = chain.shape.nodes.findIndex(({ edges }) => edges.includes(index));
  // Records that cannot be encoded are blamed on the operator that emits them.
  const blame = `op = ${String(owner)};`;
  const lines = [
    `// ${shape.strategy} edge to "${oneLine(shape.target)}"`,
    `${names.of('sent', { kind: 'sent' })}[0] += 1;`,
  ];
  if (shape.strategy !== 'HASH') lines.push(blame);
  switch (shape.strategy) {
    case 'FORWARD':
    case 'GLOBAL':
      lines.push(toChannel(shape, names, record, 0));
      break;
    case 'BROADCAST':
      shape.channels.forEach((_, channel) => lines.push(toChannel(shape, names, record, channel)));
      break;
    case 'REBALANCE':
    case 'RESCALE':
      lines.push(...roundRobin(shape, names, record));
      break;
    case 'HASH':
      lines.push(
        ...byKey(shape, names, record, [
          `op = ${String(chain.shape.nodes.length + index)};`,
          blame,
        ]),
      );
      break;
  }
  return lines.join('\n');
}

class EdgeNames {
  readonly #chain: ChainScope;
  readonly #edge: number;

  constructor(chain: ChainScope, edge: number) {
    this.#chain = chain;
    this.#edge = edge;
  }

  of(hint: string, part: EdgePart): string {
    const name = this.local(hint);
    return this.#chain.parameter({ name, of: { kind: 'edge', edge: this.#edge, part } });
  }

  local(hint: string): string {
    return `${hint}_e${String(this.#edge)}`;
  }

  runtime(name: string): string {
    return this.#chain.parameter({ name, of: { kind: 'runtime' } });
  }
}

function roundRobin(shape: EdgeShape, names: EdgeNames, record: RecordNames): string[] {
  const count = shape.channels.length;
  if (count === 1) return [toChannel(shape, names, record, 0)];
  const edge = names.of('edge', { kind: 'output' });
  const channel = names.local('channel');
  return [
    `const ${channel} = ${edge}.next;`,
    `${edge}.next = ${channel} === ${String(count - 1)} ? 0 : ${channel} + 1;`,
    choose(shape, names, record, channel),
  ];
}

/** The hash goes along with a direct call: the consumer needs it for its state. */
function byKey(
  shape: EdgeShape,
  names: EdgeNames,
  record: RecordNames,
  [blameSelector, blameOwner]: readonly [string, string],
): string[] {
  const keyOf = names.of('keyOf', { kind: 'keyOf' });
  const [key, hash, channel] = ['key', 'hash', 'channel'].map((hint) => names.local(hint));
  const [fmix32, hashKey] = [names.runtime('fmix32'), names.runtime('hashKey')];
  const hashed = { ...record, keyHash: hash! };
  const lines = [
    blameSelector,
    `const ${key!} = ${keyOf}(${record.value});`,
    `const ${hash!} = typeof ${key!} === 'number' && (${key!} | 0) === ${key!} ? ${fmix32}(${key!} | 0) : ${hashKey}(${key!});`,
    blameOwner,
  ];
  if (shape.channels.length === 1) return [...lines, toChannel(shape, names, hashed, 0)];
  const channelOfGroup = names.of('channelOfGroup', { kind: 'channelOfGroup' });
  return [
    ...lines,
    `const ${channel!} = ${channelOfGroup}[(${hash!} >>> 0) % ${String(shape.maxParallelism)}];`,
    choose(shape, names, hashed, channel!),
  ];
}

/** Among several channels, by the index that the variable `channel` holds. */
function choose(shape: EdgeShape, names: EdgeNames, record: RecordNames, channel: string): string {
  const direct = shape.channels.flatMap((kind, index) => (kind === 'direct' ? [index] : []));
  if (direct.length === shape.channels.length) {
    const channels = names.of('channels', { kind: 'channels' });
    return `${channels}[${channel}].collect(${record.value}, ${record.timestamp});`;
  }
  const toRing = throughRing(shape, names, record, channel);
  const branches = direct.map(
    (index) =>
      `if (${channel} === ${String(index)}) {\n${toChannel(shape, names, record, index)}\n} else `,
  );
  return `${branches.join('')}{\n${toRing}\n}`;
}

/** To the channel of this index. */
function toChannel(shape: EdgeShape, names: EdgeNames, record: RecordNames, index: number): string {
  if (shape.channels[index] === 'ring') return throughRing(shape, names, record, String(index));
  const channel = names.of(`direct${String(index)}`, { kind: 'direct', channel: index });
  const { value, timestamp, keyHash = 'undefined' } = record;
  return [
    `if (${channel}.isOpen) ${channel}.take(${value}, ${timestamp}, ${keyHash});`,
    `else ${channel}.collect(${value}, ${timestamp});`,
  ].join('\n');
}

function throughRing(
  shape: EdgeShape,
  names: EdgeNames,
  { value, timestamp }: RecordNames,
  channel: string,
): string {
  const writers = names.of('writers', { kind: 'writers' });
  const channels = names.of('channels', { kind: 'channels' });
  const append = `${writers}[${channel}].append(${value}, ${timestamp})`;
  const seal = `${channels}[${channel}].seal();`;
  return shape.sealsEachRecord ? `${append};\n${seal}` : `if (${append}) ${seal}`;
}
