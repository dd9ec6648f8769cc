/**
 * Settings as text become a Configuration: parsed, bounded, related to each other, frozen, each value with its
 * source. All problems are reported at once. Pure: files and environment are read in load.ts.
 */
import { MillraceError } from '../lib/base/errors.js';
import { formatDuration } from './option-types.js';
import { allOptions, type Option, options } from './options.js';

export type SettingSource = 'default' | 'file' | 'environment' | 'argument' | 'job';

/** One setting before it is understood. */
export interface Setting {
  readonly key: string;
  readonly text: string;
  readonly source: SettingSource;
  /** Where a person finds it: "config/millrace.yaml:4:12", "environment MILLRACE_REST_PORT", "-D rest.port=x". */
  readonly where: string;
}

export interface ConfigProblem {
  readonly where: string;
  readonly message: string;
  readonly key?: string;
}

/** All faults of a configuration in one error. */
export class ConfigError extends MillraceError {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ where, message }) => `  ${where}: ${message}`);
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
    super('CONFIG', [`${count} in the configuration:`, ...lines].join('\n'), {
      details: { problems },
    });
    this.problems = problems;
  }
}

interface Entry {
  readonly value: unknown;
  readonly text: string;
  readonly source: SettingSource;
  readonly where: string;
}

export interface ConfigurationEntry {
  readonly key: string;
  readonly text: string;
  readonly source: SettingSource;
}

const byKey: ReadonlyMap<string, Option<unknown>> = new Map(
  allOptions.map((option) => [option.key, option]),
);
const masked = '******';

export class Configuration {
  readonly #entries: ReadonlyMap<string, Entry>;

  /** Use {@link buildConfiguration}, which checks. */
  constructor(entries: ReadonlyMap<string, Entry>) {
    this.#entries = entries;
    Object.freeze(this);
  }

  get<T>(option: Option<T>): T {
    const entry = this.#entries.get(option.key);
    return entry === undefined ? option.default : (entry.value as T);
  }

  source(option: Option<unknown>): SettingSource {
    return this.#entries.get(option.key)?.source ?? 'default';
  }

  /** Whether somebody chose the value, be it the same as the default. */
  isSet(option: Option<unknown>): boolean {
    return this.#entries.has(option.key);
  }

  /** The chosen settings as text, secrets included: to hand on to a process or into a job graph. */
  settings(): Record<string, string> {
    return Object.fromEntries([...this.#entries].map(([key, { text }]) => [key, text]));
  }

  /** Every option with its value and source, secrets masked: for logs and REST. */
  entries(): ConfigurationEntry[] {
    return allOptions.map((option) => {
      const value = this.get(option);
      const text = option.type.format(value);
      const shown = option.isSecret === true && value !== undefined ? masked : text;
      return { key: option.key, text: shown, source: this.source(option) };
    });
  }

  /** This configuration with some settings on top of it; throws ConfigError. */
  with(settings: Readonly<Record<string, string>>, source: SettingSource): Configuration {
    const kept = [...this.#entries].map(([key, { text, source: old, where }]) => ({
      key,
      text,
      source: old,
      where,
    }));
    return buildConfiguration([...kept, ...settingsOf(settings, source)]);
  }
}

export function settingsOf(
  settings: Readonly<Record<string, string>>,
  source: SettingSource,
): Setting[] {
  return Object.entries(settings).map(([key, text]) => ({
    key,
    text,
    source,
    where: source === 'argument' ? `-D ${key}=${text}` : `${source} setting ${key}`,
  }));
}

/** Later settings win over earlier ones. Throws ConfigError with all problems, earlier ones of the caller's first. */
export function buildConfiguration(
  settings: readonly Setting[],
  problemsSoFar: readonly ConfigProblem[] = [],
): Configuration {
  const problems = [...problemsSoFar];
  const entries = new Map<string, Entry>();
  for (const { key, text, source, where } of settings) {
    const option = byKey.get(key);
    if (option === undefined) {
      problems.push({ where, key, message: unknownKey(key) });
      continue;
    }
    try {
      const value = option.type.parse(text.trim());
      if (value === undefined) entries.delete(key);
      else entries.set(key, { value: Object.freeze(value), text: text.trim(), source, where });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const shown = option.isSecret === true ? masked : JSON.stringify(text);
      problems.push({ where, key, message: `${key}: ${error.message}, got ${shown}` });
    }
  }
  const configuration = new Configuration(entries);
  // A value that could not be read makes its relations meaningless.
  if (problems.length === 0) problems.push(...relationProblems(configuration, entries));
  if (problems.length > 0) throw new ConfigError(problems);
  return configuration;
}

/** A configuration from plain settings, as a job or a test gives them. */
export function configurationOf(settings: Readonly<Record<string, string>> = {}): Configuration {
  return buildConfiguration(settingsOf(settings, 'job'));
}

interface Relation {
  /** The option a person would change; its source says where. */
  readonly option: Option<unknown>;
  /** The problem, or undefined when all is well. */
  readonly check: (config: Configuration) => string | undefined;
}

const relations: readonly Relation[] = [
  {
    option: options.heartbeatTimeout,
    check: (config) => {
      const interval = config.get(options.heartbeatInterval);
      return config.get(options.heartbeatTimeout) > interval
        ? undefined
        : `must be longer than heartbeat.interval (${formatDuration(interval)}), or every peer is lost at once`;
    },
  },
  {
    option: options.restartStrategyExponentialDelayMaxBackoff,
    check: (config) => {
      const initial = config.get(options.restartStrategyExponentialDelayInitialBackoff);
      return config.get(options.restartStrategyExponentialDelayMaxBackoff) >= initial
        ? undefined
        : `must not be shorter than the initial backoff (${formatDuration(initial)})`;
    },
  },
  { option: options.highAvailabilityEtcdLeaseTtl, check: checkLeaseTtl },
  {
    option: options.highAvailabilityEtcdEndpoints,
    check: (config) =>
      config.get(options.highAvailabilityType) === 'etcd' &&
      config.get(options.highAvailabilityEtcdEndpoints).length === 0
        ? 'is required when high-availability.type is etcd'
        : undefined,
  },
  {
    option: options.highAvailabilityEtcdEndpoints,
    check: (config) => {
      const bad = config
        .get(options.highAvailabilityEtcdEndpoints)
        .find((url) => !/^https?:\/\/[^/\s]+$/.test(url));
      return bad === undefined ? undefined : `expected URLs such as http://host:2379, got ${bad}`;
    },
  },
  {
    option: options.highAvailabilityStorageDir,
    check: (config) =>
      config.get(options.highAvailabilityType) === 'etcd' &&
      config.get(options.highAvailabilityStorageDir) === undefined
        ? 'is required when high-availability.type is etcd'
        : undefined,
  },
  {
    option: options.highAvailabilityClusterId,
    check: (config) =>
      /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(config.get(options.highAvailabilityClusterId))
        ? undefined
        : 'expected 1 to 64 letters, digits, ".", "_" or "-", a letter or digit first: it is part of keys and paths',
  },
  {
    option: options.restToken,
    check: (config) => {
      const address = config.get(options.restBindAddress);
      return isLoopback(address) || config.get(options.restToken) !== undefined
        ? undefined
        : `is required when rest.bind-address (${address}) is not loopback: REST runs code`;
    },
  },
];

function checkLeaseTtl(config: Configuration): string | undefined {
  const ttl = config.get(options.highAvailabilityEtcdLeaseTtl);
  const election = config.get(options.highAvailabilityEtcdElectionTimeout);
  if (ttl % 1000 !== 0) return 'must be whole seconds, as etcd counts leases in seconds';
  // A renewal may meet a dead member (three tries of 400 ms) and then an election of two timeouts.
  const least = 3 * 400 + 2 * election;
  if (ttl > least) return undefined;
  return `must be longer than ${formatDuration(least)} with an election timeout of ${formatDuration(election)}, or an etcd election costs the leadership`;
}

function relationProblems(
  config: Configuration,
  entries: ReadonlyMap<string, Entry>,
): ConfigProblem[] {
  return relations.flatMap(({ option, check }) => {
    const message = check(config);
    if (message === undefined) return [];
    const where = entries.get(option.key)?.where ?? 'default';
    return [{ where, key: option.key, message: `${option.key} ${message}` }];
  });
}

export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || address.startsWith('127.');
}

function unknownKey(key: string): string {
  const nearest = nearestName(key, [...byKey.keys()]);
  const hint = nearest === undefined ? '' : `; did you mean ${nearest}?`;
  return `unknown key ${key}${hint}`;
}

/** The known name a person most probably meant, when one is near enough. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const longer = known.filter((candidate) => candidate.startsWith(`${name}.`));
  if (longer.length > 0) return longer[0];
  const wanted = name.toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(wanted, candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(change, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}
