// The layering of ARCHITECTURE.md "Layers". test/tidy/layers.test.ts plants one violation per rule
// and expects it to be reported, so a rule here cannot silently stop matching.
const IO =
  '^(node:)?(fs|fs/promises|net|tls|https?|http2|dns|dgram|child_process|worker_threads|cluster|timers|process|os)(/|$)';
const UPPER =
  '^lib/(api|graph|operators|connectors|rpc|network|task|jobmanager|taskmanager|client|rest)/';

/** @param {string} name @param {string} home @param {string} comment */
const packageLivesIn = (name, home, comment) => ({
  name: `${name.replace(/[@/]/g, '')}-lives-in-one-place`,
  severity: 'error',
  comment,
  from: { path: '^(lib|ha|checkpoint|bin|config)/', pathNot: home },
  to: { path: `(^|/)node_modules/${name}/` },
});

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'no-cycle',
      severity: 'error',
      comment: 'A cycle means two files are one; move the shared part below both.',
      from: {},
      to: { circular: true },
    },
    {
      name: 'jobmanager-and-taskmanager-meet-at-gateways',
      severity: 'error',
      comment: 'They are different processes: what they share is a message in lib/gateway.',
      from: { path: '^lib/(jobmanager|taskmanager)/' },
      to: { path: '^lib/(jobmanager|taskmanager)/', pathNot: '^lib/$1/' },
    },
    {
      name: 'ha-and-checkpoint-stand-apart',
      severity: 'error',
      comment: 'The coordinator reaches HA stores through ports handed to it by the wiring.',
      from: { path: '^(ha|checkpoint)/' },
      to: { path: '^(ha|checkpoint)/', pathNot: '^$1/' },
    },
    {
      name: 'ha-and-checkpoint-below-upper-lib',
      severity: 'error',
      comment: 'ha and checkpoint know base, record, state, time and gateway types only.',
      from: { path: '^(ha|checkpoint)/' },
      to: { path: UPPER },
    },
    {
      name: 'machines-reach-no-io',
      severity: 'error',
      comment: 'A machine, with everything it imports, decides; its driver does the I/O.',
      from: { path: '\\.machine\\.ts$' },
      to: { reachable: true, path: `${IO}|(^|/)node_modules/` },
    },
    packageLivesIn('etcd3', '^ha/etcd/', 'etcd is reached through KvStore (ha/kv-store.ts).'),
    packageLivesIn(
      '@grpc/grpc-js',
      '^(lib/rpc/|ha/etcd/)',
      'RPC goes through the interfaces of lib/rpc.',
    ),
    packageLivesIn(
      'undici',
      '^(lib/rest/rest-client\\.ts|checkpoint/storage/http-.*\\.ts)$',
      'HTTP goes through RestClient or the HTTP checkpoint storage.',
    ),
    packageLivesIn(
      'pino',
      '^lib/base/pino-logger\\.ts$',
      'Log through Logger (lib/base/logger.ts).',
    ),
    {
      name: 'product-code-imports-no-tests-nor-entry-points',
      severity: 'error',
      comment: 'bin wires the library and tests use it, never the other way round.',
      from: { path: '^(lib|ha|checkpoint|config)/' },
      to: { path: '^(bin|test|bench|examples)/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
    },
  },
};
