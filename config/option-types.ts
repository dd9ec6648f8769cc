/** The value types of options: text to value and back, with an error sentence that says what is expected. */

export interface OptionType<T> {
  /** As documented: "duration", "memory size", "enum (a | b)". */
  readonly name: string;
  /** Value of a text; throws a RangeError whose message says what was expected. */
  parse(text: string): T;
  /** The shortest text that parses to the value. */
  format(value: T): string;
}

export interface Bounds {
  readonly min?: number;
  readonly max?: number;
}

const durationUnits: readonly (readonly [readonly string[], number])[] = [
  [['d', 'day', 'days'], 86_400_000],
  [['h', 'hour', 'hours'], 3_600_000],
  [['min', 'm', 'minute', 'minutes'], 60_000],
  [['s', 'sec', 'second', 'seconds'], 1000],
  [['ms', 'milli', 'millis', 'millisecond', 'milliseconds', ''], 1],
];

const memoryUnits: readonly (readonly [readonly string[], number])[] = [
  [['tb', 't'], 1024 ** 4],
  [['gb', 'g'], 1024 ** 3],
  [['mb', 'm'], 1024 ** 2],
  [['kb', 'k'], 1024],
  [['b', 'bytes', ''], 1],
];

/** Milliseconds as a number; a text without a unit is milliseconds, as in Flink. */
export function parseDuration(text: string): number {
  return parseWithUnit(text, durationUnits, 'a duration such as 500 ms, 10 s, 5 min, 1 h or 1 d');
}

export function formatDuration(ms: number): string {
  return formatWithUnit(ms, durationUnits, ' ');
}

/** Bytes as a number; units are powers of 1024 and a text without a unit is bytes, as in Flink. */
export function parseMemorySize(text: string): number {
  return parseWithUnit(text, memoryUnits, 'a size such as 4096, 32kb, 256m or 2g');
}

export function formatMemorySize(bytes: number): string {
  return formatWithUnit(bytes, memoryUnits, '');
}

/** In milliseconds inside the program. */
export function durationType(bounds: Bounds = {}): OptionType<number> {
  return bounded('duration', parseDuration, formatDuration, { min: 0, ...bounds });
}

/** In bytes inside the program. */
export function memoryType(bounds: Bounds = {}): OptionType<number> {
  return bounded('memory size', parseMemorySize, formatMemorySize, { min: 0, ...bounds });
}

export function intType(bounds: Bounds & { readonly infinite?: boolean } = {}): OptionType<number> {
  const { infinite, ...limits } = bounds;
  const parse = (text: string): number => {
    if (infinite === true && text === 'infinite') return Infinity;
    if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(Number(text))) {
      throw new RangeError(`expected a whole number${infinite === true ? ' or "infinite"' : ''}`);
    }
    return Number(text);
  };
  const format = (value: number): string => (value === Infinity ? 'infinite' : String(value));
  return bounded(infinite === true ? 'int or "infinite"' : 'int', parse, format, limits);
}

export function floatType(bounds: Bounds = {}): OptionType<number> {
  const parse = (text: string): number => {
    const value = text === '' ? NaN : Number(text);
    if (!Number.isFinite(value)) throw new RangeError('expected a number');
    return value;
  };
  return bounded('float', parse, String, bounds);
}

export function boolType(): OptionType<boolean> {
  return {
    name: 'bool',
    parse: (text) => {
      if (text === 'true' || text === 'false') return text === 'true';
      throw new RangeError('expected true or false');
    },
    format: String,
  };
}

export function stringType(): OptionType<string> {
  return { name: 'string', parse: (text) => text, format: (value) => value };
}

export function enumType<const T extends string>(...values: readonly T[]): OptionType<T> {
  return {
    name: `enum (${values.join(' | ')})`,
    parse: (text) => {
      const found = values.find((value) => value === text);
      if (found === undefined) throw new RangeError(`expected one of ${values.join(', ')}`);
      return found;
    },
    format: (value) => value,
  };
}

/** In text separated by commas or semicolons; in YAML also a sequence. */
export function listType(): OptionType<readonly string[]> {
  return {
    name: 'list',
    parse: (text) =>
      text
        .split(/[,;]/)
        .map((item) => item.trim())
        .filter((item) => item !== ''),
    format: (value) => value.join(','),
  };
}

/** An option that may be left unset: its value is then undefined. */
export function optional<T>(type: OptionType<T>): OptionType<T | undefined> {
  return {
    name: type.name,
    parse: (text) => (text === '' ? undefined : type.parse(text)),
    format: (value) => (value === undefined ? '' : type.format(value)),
  };
}

function bounded(
  name: string,
  parse: (text: string) => number,
  format: (value: number) => string,
  { min = -Infinity, max = Infinity }: Bounds,
): OptionType<number> {
  return {
    name,
    format,
    parse: (text) => {
      const value = parse(text);
      if (value < min) throw new RangeError(`expected at least ${format(min)}`);
      if (value > max) throw new RangeError(`expected at most ${format(max)}`);
      return value;
    },
  };
}

function parseWithUnit(
  text: string,
  units: readonly (readonly [readonly string[], number])[],
  expected: string,
): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(text.trim().toLowerCase());
  const unit = units.find(([names]) => names.includes(match?.[2] ?? '-'));
  if (match === null || unit === undefined) throw new RangeError(`expected ${expected}`);
  const value = Number(match[1]) * unit[1];
  if (!Number.isSafeInteger(value)) throw new RangeError(`expected ${expected}, in whole units`);
  return value;
}

function formatWithUnit(
  value: number,
  units: readonly (readonly [readonly string[], number])[],
  gap: string,
): string {
  if (value === 0) return '0';
  for (const [names, factor] of units) {
    if (value % factor === 0) return `${value / factor}${gap}${names[0] ?? ''}`;
  }
  return String(value);
}
