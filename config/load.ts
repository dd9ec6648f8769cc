/** Reads the configuration of a process: defaults, then file, then environment, then -D arguments. */
import { existsSync, readFileSync } from 'node:fs';
import { isAbsolute, relative, resolve } from 'node:path';
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type Scalar,
} from 'yaml';
import {
  buildConfiguration,
  ConfigError,
  type ConfigProblem,
  type Configuration,
  nearestName,
  type Setting,
} from './configuration.js';
import { readDefinitions } from './definitions.js';
import { allOptions } from './options.js';

export interface LoadOptions {
  /** Values of -D: "key=value". */
  readonly definitions?: readonly string[];
  /** Must exist when given. Otherwise MILLRACE_CONF_FILE, otherwise config/millrace.yaml if there is one. */
  readonly file?: string;
  /** Default process.env. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Default process.cwd(). */
  readonly folder?: string;
}

const environmentPrefix = 'MILLRACE_';
const defaultFile = 'config/millrace.yaml';
/** Variables of ours that are not options. */
const otherVariables: readonly string[] = ['MILLRACE_CONF_FILE', 'MILLRACE_ETCD_BINARY'];
/** Names with this start are between our own processes. */
const internalPrefix = 'MILLRACE_INTERNAL_';

/** Throws ConfigError with every problem of every source. */
export function loadConfiguration(load: LoadOptions = {}): Configuration {
  const environment = load.environment ?? process.env;
  const problems: ConfigProblem[] = [];
  const settings = [
    ...readFile(load, environment, problems),
    ...readEnvironment(environment, problems),
    ...readDefinitions(load.definitions ?? [], problems),
  ];
  return buildConfiguration(settings, problems);
}

/** The environment variable that sets an option: rest.bind-address is MILLRACE_REST_BIND_ADDRESS. */
export function environmentName(key: string): string {
  return environmentPrefix + key.toUpperCase().replace(/[.-]/g, '_');
}

function readFile(
  load: LoadOptions,
  environment: Readonly<Record<string, string | undefined>>,
  problems: ConfigProblem[],
): Setting[] {
  const folder = load.folder ?? process.cwd();
  const named = load.file ?? environment['MILLRACE_CONF_FILE'];
  const path = resolve(folder, named ?? defaultFile);
  if (named === undefined && !existsSync(path)) return [];
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError([{ where: path, message: `cannot be read: ${reason}` }]);
  }
  const shown = relative(folder, path);
  return parseYaml(text, shown.startsWith('..') || isAbsolute(shown) ? path : shown, problems);
}

/** Keys may be nested or dotted. `name` is how positions call the file. */
export function parseYaml(text: string, name: string, problems: ConfigProblem[]): Setting[] {
  const lines = new LineCounter();
  // The failsafe schema leaves every scalar the text it is: 256m, 010 and yes mean what the option says.
  const document = parseDocument(text, { lineCounter: lines, schema: 'failsafe' });
  const where = (offset: number | undefined): string => {
    const { line, col } = lines.linePos(offset ?? 0);
    return `${name}:${line}:${col}`;
  };
  for (const error of document.errors) {
    const [message] = error.message.split('\n');
    problems.push({ where: where(error.pos[0]), message: message ?? error.code });
  }
  if (document.errors.length > 0 || document.contents === null) return [];

  const settings = new Map<string, Setting>();
  const add = (key: string, value: string, node: Node): void => {
    const place = where(node.range?.[0]);
    const earlier = settings.get(key);
    if (earlier !== undefined) {
      problems.push({ where: place, key, message: `${key} is set already at ${earlier.where}` });
    }
    settings.set(key, { key, text: value, source: 'file', where: place });
  };
  const walk = (node: unknown, path: string): void => {
    if (isMap(node)) {
      for (const { key, value } of node.items) {
        const part = isScalar(key) ? textOf(key) : String(key);
        walk(value, path === '' ? part : `${path}.${part}`);
      }
    } else if (isSeq(node) && node.items.every(isScalar)) {
      add(path, node.items.map(textOf).join(','), node);
    } else if (isScalar(node)) {
      // "key:" with nothing after it leaves the option unset.
      if (path === '') refuse(node, 'expected "key: value" lines');
      else if (textOf(node) !== '') add(path, textOf(node), node);
    } else if (isAlias(node) || isSeq(node)) {
      refuse(node, `${path}: expected a value or a list of values`);
    }
  };
  const refuse = (node: Node, message: string): void => {
    problems.push({ where: where(node.range?.[0]), message });
  };
  walk(document.contents, '');
  return [...settings.values()];
}

/** In the failsafe schema a value is a text, or null when nothing follows the colon. */
function textOf(scalar: Scalar): string {
  return typeof scalar.value === 'string' ? scalar.value : '';
}

function readEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  problems: ConfigProblem[],
): Setting[] {
  const keys = new Map(allOptions.map(({ key }) => [environmentName(key), key]));
  const settings: Setting[] = [];
  for (const [name, text] of Object.entries(environment)) {
    if (!name.startsWith(environmentPrefix) || text === undefined) continue;
    if (otherVariables.includes(name) || name.startsWith(internalPrefix)) continue;
    const key = keys.get(name);
    const where = `environment ${name}`;
    if (key !== undefined) {
      settings.push({ key, text, source: 'environment', where });
    } else {
      const nearest = nearestName(name, [...keys.keys(), ...otherVariables]);
      const hint = nearest === undefined ? '' : `; did you mean ${nearest}?`;
      problems.push({ where, message: `unknown variable${hint}` });
    }
  }
  return settings;
}
