// Rules and why: CONTRIBUTING.md "Checks". A ban names its remedy in its message.
import tseslint from 'typescript-eslint';

const FROM_ENV = 'Take it from Env (lib/base/env.ts), so that tests and the simulation control it.';

/** Ambient time, randomness and process state: only the system-* files, bin/ and config/load.ts may touch them. */
const ambientGlobals = [
  ...['setTimeout', 'setInterval', 'setImmediate'].map((name) => ({
    name,
    message: `${FROM_ENV} Timers: env.clock.setTimer.`,
  })),
  { name: 'console', message: 'Log through env.log; people read output of bin/ only.' },
];
const ambientProperties = [
  { object: 'Date', property: 'now', message: `${FROM_ENV} env.clock.now() or wallTime().` },
  { object: 'performance', property: 'now', message: `${FROM_ENV} env.clock.now().` },
  { object: 'Math', property: 'random', message: `${FROM_ENV} env.random.` },
  { object: 'crypto', property: 'randomUUID', message: `${FROM_ENV} env.random.` },
  {
    object: 'AbortSignal',
    property: 'timeout',
    message: 'Uses real timers. Use withDeadline (lib/base/abort.ts).',
  },
  {
    object: 'process',
    property: 'env',
    message: 'Read settings in config/load.ts and pass them in.',
  },
  { object: 'process', property: 'argv', message: 'Arguments are parsed in bin/ and passed in.' },
  {
    object: 'process',
    property: 'exit',
    message: 'Only bin/ ends the process; report the error up.',
  },
];
const newDateNow = {
  selector: 'NewExpression[callee.name="Date"][arguments.length=0]',
  message: `${FROM_ENV} new Date(env.clock.wallTime()).`,
};
const defaultExport = {
  selector: 'ExportDefaultDeclaration',
  message: 'Export by name: a name that is the same at every import can be searched for.',
};
const PURE = 'A machine is pure and synchronous: return an effect and let the driver do it.';

/** What a *.machine.ts must not contain on top of the ambient bans. */
const impurities = [
  { selector: ':function[async=true]', message: PURE },
  { selector: 'AwaitExpression', message: PURE },
  { selector: 'NewExpression[callee.name="Promise"]', message: PURE },
  { selector: 'ImportDeclaration[source.value=/^node:/]', message: PURE },
];

const TYPESCRIPT = ['**/*.ts'];
const PRODUCT = ['lib/**/*.ts', 'ha/**/*.ts', 'checkpoint/**/*.ts', 'config/**/*.ts'];
const PROCESS_EDGE = ['lib/base/system-*.ts', 'lib/base/*-logger.ts', 'config/load.ts'];

export default tseslint.config(
  { ignores: ['build/', 'node_modules/', '.millrace/', '.tap/', 'coverage/', 'web/'] },
  {
    files: ['**/*.js', '**/*.cjs', '**/*.mjs'],
    languageOptions: { ecmaVersion: 2023 },
    rules: { eqeqeq: 'error', 'no-undef': 'off', 'no-unused-vars': 'error' },
  },
  {
    files: TYPESCRIPT,
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      eqeqeq: 'error',
      'no-restricted-syntax': ['error', defaultExport],
      'max-lines': ['error', { max: 600, skipBlankLines: true, skipComments: true }],
      'no-empty': ['error', { allowEmptyCatch: false }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_' },
      ],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true, allowNullish: true },
      ],
      '@typescript-eslint/restrict-plus-operands': ['error', { allowNumberAndString: true }],
      '@typescript-eslint/no-misused-promises': [
        'error',
        { checksVoidReturn: { arguments: true, attributes: true, inheritedMethods: false } },
      ],
      '@typescript-eslint/return-await': ['error', 'error-handling-correctness-only'],
      // Off because they report right code more often than wrong code here:
      // narrowing of fields does not survive an await, so "always true" is often false;
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // indexing in bounded loops of the record path;
      '@typescript-eslint/no-non-null-assertion': 'off',
      // implementations of an asynchronous port that need not wait;
      '@typescript-eslint/require-await': 'off',
      // type parameters that only carry a record's type through the job author's API;
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/no-extraneous-class': 'off',
      '@typescript-eslint/no-dynamic-delete': 'off',
      '@typescript-eslint/unified-signatures': 'off',
      '@typescript-eslint/no-unnecessary-type-arguments': 'off',
      '@typescript-eslint/no-unnecessary-type-conversion': 'off',
    },
  },
  {
    files: PRODUCT,
    rules: {
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
      'max-params': 'off',
      '@typescript-eslint/max-params': ['error', { max: 4 }],
      '@typescript-eslint/explicit-module-boundary-types': 'error',
    },
  },
  {
    files: PRODUCT,
    ignores: PROCESS_EDGE,
    rules: {
      'no-restricted-globals': ['error', ...ambientGlobals],
      'no-restricted-properties': ['error', ...ambientProperties],
      'no-restricted-syntax': ['error', defaultExport, newDateNow],
    },
  },
  {
    files: ['**/*.machine.ts'],
    rules: {
      'no-restricted-globals': [
        'error',
        ...ambientGlobals,
        ...['process', 'fetch', 'performance', 'crypto'].map((name) => ({ name, message: PURE })),
      ],
      'no-restricted-syntax': ['error', defaultExport, newDateNow, ...impurities],
    },
  },
  {
    files: ['test/**/*.ts', 'examples/**/*.ts', 'bench/**/*.ts'],
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafePromises: [
            { from: 'package', package: '@tapjs/core', name: 'PromiseWithSubtest' },
          ],
        },
      ],
      // Tests look into messages and raw JSON; the assertions check them.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-redundant-type-constituents': 'off',
      '@typescript-eslint/no-misused-promises': 'off',
      '@typescript-eslint/unbound-method': 'off',
    },
  },
);
