import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Configuration, ConfigError, configurationOf } from '../../../config/configuration.js';
import { environmentName, loadConfiguration } from '../../../config/load.js';
import {
  durationType,
  formatDuration,
  formatMemorySize,
  parseDuration,
  parseMemorySize,
} from '../../../config/option-types.js';
import { allOptions, options } from '../../../config/options.js';

function problemsOf(load: () => unknown): string[] {
  try {
    load();
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.problems.map(({ where, message }) => `${where}: ${message}`);
    }
    throw error;
  }
  return [];
}

t.test('units', (t) => {
  t.equal(parseDuration('10s'), 10_000);
  t.equal(parseDuration('1.5 min'), 90_000);
  t.equal(parseDuration('250'), 250);
  t.equal(parseMemorySize('32kb'), 32_768);
  t.equal(parseMemorySize('256m'), 256 * 1024 ** 2);
  t.equal(parseMemorySize('4096'), 4096);
  for (const bad of ['', 's', '-1s', '10 parsecs', '1e3s', '0.5']) {
    t.throws(() => parseDuration(bad), RangeError, `"${bad}" is not a duration`);
  }
  t.throws(() => durationType({ min: 10 }).parse('5ms'), { message: 'expected at least 10 ms' });
  fc.assert(
    fc.property(fc.nat(), (n) => {
      t.ok(parseDuration(formatDuration(n)) === n && parseMemorySize(formatMemorySize(n)) === n);
    }),
    { numRuns: 50 },
  );
  t.end();
});

t.test('each source wins over the ones before it, and says so', (t) => {
  const folder = t.testdir({
    config: {
      'millrace.yaml': [
        'parallelism.default: 2',
        'rest:',
        '  port: 9000',
        '  bind-address: 127.0.0.1',
        'heartbeat.interval: 2 s',
        'high-availability.etcd.endpoints: [http://a:2379, "http://b:2379"]',
        'pipeline.name:',
      ].join('\n'),
    },
  });
  const config = loadConfiguration({
    folder,
    environment: { MILLRACE_REST_PORT: '9001', MILLRACE_HEARTBEAT_INTERVAL: '3 s', PATH: '/bin' },
    definitions: ['heartbeat.interval=4 s'],
  });
  t.equal(config.get(options.parallelismDefault), 2);
  t.equal(config.source(options.parallelismDefault), 'file');
  t.equal(config.get(options.restPort), 9001);
  t.equal(config.source(options.restPort), 'environment');
  t.equal(config.get(options.heartbeatInterval), 4000);
  t.equal(config.source(options.heartbeatInterval), 'argument');
  t.equal(config.get(options.heartbeatTimeout), 5000);
  t.equal(config.source(options.heartbeatTimeout), 'default');
  t.strictSame(config.get(options.highAvailabilityEtcdEndpoints), [
    'http://a:2379',
    'http://b:2379',
  ]);
  t.equal(config.get(options.pipelineName), undefined);
  t.equal(config.isSet(options.pipelineName), false);
  t.strictSame(config.settings(), {
    'parallelism.default': '2',
    'rest.port': '9001',
    'rest.bind-address': '127.0.0.1',
    'heartbeat.interval': '4 s',
    'high-availability.etcd.endpoints': 'http://a:2379,http://b:2379',
  });
  t.end();
});

t.test('all faults of all sources are reported at once, each with its place', (t) => {
  const folder = t.testdir({
    'my.yaml': ['rest:', '  prot: 80', 'heartbeat.interval: soon', 'rest.port: 99999', ''].join(
      '\n',
    ),
  });
  const problems = problemsOf(() =>
    loadConfiguration({
      folder,
      file: 'my.yaml',
      environment: { MILLRACE_PARALELISM_DEFAULT: '2', MILLRACE_RESTART_STRATEGY_TYPE: 'always' },
      definitions: ['high-availability=etcd', 'parallelism.default'],
    }),
  );
  t.strictSame(problems, [
    'environment MILLRACE_PARALELISM_DEFAULT: unknown variable; did you mean MILLRACE_PARALLELISM_DEFAULT?',
    '-D parallelism.default: expected key=value',
    'my.yaml:2:9: unknown key rest.prot; did you mean rest.port?',
    'my.yaml:3:21: heartbeat.interval: expected a duration such as 500 ms, 10 s, 5 min, 1 h or 1 d, got "soon"',
    'my.yaml:4:12: rest.port: expected at most 65535, got "99999"',
    'environment MILLRACE_RESTART_STRATEGY_TYPE: restart-strategy.type: expected one of exponential-delay, fixed-delay, none, got "always"',
    '-D high-availability=etcd: unknown key high-availability; did you mean high-availability.type?',
  ]);
  t.end();
});

t.test('broken files are refused with their position', (t) => {
  const folder = t.testdir({
    'tab.yaml': 'rest:\n\tport: 1\n',
    'twice.yaml': 'rest.port: 1\nrest:\n  port: 2\n',
    'list.yaml': 'rest.port: [{a: 1}]\n',
    'text.yaml': 'hello\n',
    'empty.yaml': '# nothing\n',
  });
  const load = (file: string) => () => loadConfiguration({ folder, file, environment: {} });
  t.match(problemsOf(load('tab.yaml'))[0], /^tab\.yaml:2:1: /);
  t.strictSame(problemsOf(load('twice.yaml')), [
    'twice.yaml:3:9: rest.port is set already at twice.yaml:1:12',
  ]);
  t.match(problemsOf(load('list.yaml'))[0], /^list\.yaml:1:12: rest\.port: expected a value/);
  t.match(problemsOf(load('text.yaml'))[0], /^text\.yaml:1:1: expected "key: value"/);
  t.match(problemsOf(load('missing.yaml'))[0], /missing\.yaml: cannot be read/);
  t.strictSame(problemsOf(load('empty.yaml')), []);
  t.end();
});

t.test('values that contradict each other are refused', (t) => {
  const relations: [Record<string, string>, RegExp][] = [
    [{ 'heartbeat.interval': '5 s' }, /heartbeat\.timeout must be longer/],
    [{ 'high-availability.etcd.lease-ttl': '2500 ms' }, /whole seconds/],
    [
      { 'high-availability.etcd.election-timeout': '1 s' },
      /lease-ttl must be longer than 3200 ms with an election timeout of 1 s/,
    ],
    [{ 'rest.bind-address': '0.0.0.0' }, /rest\.token is required/],
    [{ 'high-availability.cluster-id': '../x' }, /cluster-id expected 1 to 64/],
    [{ 'high-availability.etcd.endpoints': 'localhost:2379' }, /expected URLs/],
    [{ 'restart-strategy.exponential-delay.max-backoff': '1 ms' }, /must not be shorter/],
    [
      { 'high-availability.type': 'etcd', 'high-availability.etcd.endpoints': 'http://a:1' },
      /storageDir is required/,
    ],
    [
      { 'high-availability.type': 'etcd', 'high-availability.storageDir': '/x' },
      /endpoints is required/,
    ],
  ];
  for (const [settings, expected] of relations) {
    const problems = problemsOf(() => configurationOf(settings));
    t.match(problems, [expected], JSON.stringify(settings));
    t.equal(problems.length, 1);
  }
  t.doesNotThrow(() => configurationOf({ 'rest.bind-address': '0.0.0.0', 'rest.token': 'x' }));
  t.end();
});

t.test('secrets appear neither in entries nor in errors', (t) => {
  const config = configurationOf({ 'rest.token': 'hunter2' });
  t.equal(config.get(options.restToken), 'hunter2');
  t.notMatch(JSON.stringify(config.entries()), 'hunter2');
  t.end();
});

t.test('settings on top of a configuration win and are checked', (t) => {
  const base = configurationOf({ 'parallelism.default': '2' });
  const job = base.with({ 'parallelism.default': '4', 'pipeline.name': 'x' }, 'job');
  t.ok(job instanceof Configuration);
  t.equal(job.get(options.parallelismDefault), 4);
  t.equal(base.get(options.parallelismDefault), 2);
  t.throws(() => base.with({ 'parallelism.defualt': '4' }, 'argument'), {
    code: 'CONFIG',
    message: /-D parallelism\.defualt=4: unknown key .* did you mean parallelism\.default\?/,
  });
  t.end();
});

t.test('the table of options is well formed', (t) => {
  const camelCase = (key: string): string =>
    key.replace(/[.-]([a-z])/gi, (_, letter: string) => letter.toUpperCase());
  for (const [name, option] of Object.entries(options)) {
    t.equal(name, camelCase(option.key));
    t.match(option.doc, /[.]$/, `${option.key} is explained in sentences`);
  }
  const keys = allOptions.map(({ key }) => key);
  t.equal(new Set(keys.map(environmentName)).size, keys.length, 'variables are unambiguous');
  const nested = keys.filter((key) => keys.some((other) => other.startsWith(`${key}.`)));
  t.strictSame(
    nested,
    [],
    'no key is the prefix of another, so that every key can be nested in YAML',
  );
  t.end();
});

t.test('every option can be set to its own default from every source', (t) => {
  const folder = t.testdir();
  mkdirSync(join(folder, 'config'));
  const settable = allOptions.filter(({ type, default: value }) => type.format(value) !== '');
  const lines = settable.map(({ key, type, default: value }) => `${key}: ${type.format(value)}`);
  writeFileSync(join(folder, 'config/millrace.yaml'), lines.join('\n'));
  const config = loadConfiguration({ folder, environment: {} });
  for (const option of settable) {
    t.strictSame(config.get(option), option.default, option.key);
    t.equal(config.source(option), 'file');
  }
  t.end();
});
