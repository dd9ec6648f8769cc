#!/usr/bin/env node
/**
 * What `npm start` and `npm test` call. Plain JavaScript without packages, so that it runs on a bare clone: it
 * checks Node, installs packages and etcd when they are missing, builds, links, and then runs what was asked for.
 *
 *   node bin/bootstrap.mjs setup | build | start [ARGS] | test [TIER|FILE ...]
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const started = Date.now();
const leastNode = [20, 19];
const sourceFolders = ['lib', 'ha', 'checkpoint', 'bin', 'config', 'test', 'examples', 'bench'];

function say(line) {
  process.stderr.write(`[${((Date.now() - started) / 1000).toFixed(1).padStart(6)} s] ${line}\n`);
}

/** Ends with a sentence for the person in front of it instead of a stack. */
class SetupError extends Error {}

/** Runs a command quietly with a sign of life every few seconds; its output is shown when it fails. */
function runStep(label, command, args, env = {}) {
  say(label);
  const from = Date.now();
  return new Promise((resolve, reject) => {
    const output = [];
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env } });
    child.stdout.on('data', (chunk) => output.push(chunk));
    child.stderr.on('data', (chunk) => output.push(chunk));
    const sign = setInterval(() => {
      say(`${label}: ${Math.round((Date.now() - from) / 1000)} s so far`);
    }, 5000);
    const fail = (reason) => {
      clearInterval(sign);
      process.stderr.write(Buffer.concat(output));
      reject(new SetupError(`${label} failed: ${reason}`));
    };
    child.on('error', (error) => fail(error.message));
    child.on('close', (code, signal) => {
      if (code !== 0) return fail(signal === null ? `exit code ${code}` : `ended by ${signal}`);
      clearInterval(sign);
      resolve();
    });
  });
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > leastNode[0] || (major === leastNode[0] && minor >= leastNode[1])) return;
  throw new SetupError(
    `Millrace needs Node ${leastNode.join('.')} or newer; this is ${process.versions.node}. Install it from https://nodejs.org or with your version manager.`,
  );
}

// --- packages -------------------------------------------------------------------------------------------------

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * Whether node_modules holds what package-lock.json asks for. npm writes node_modules/.package-lock.json as
 * the last step of an install, so an interrupted install counts as missing.
 */
function arePackagesInstalled() {
  const wanted = readJson(join(root, 'package-lock.json'))?.packages;
  const installed = readJson(join(root, 'node_modules/.package-lock.json'))?.packages;
  if (wanted === undefined) throw new SetupError('package-lock.json is missing or damaged');
  if (installed === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true;
    const found = installed[path];
    // Packages of other platforms are in the lock file and rightly not installed.
    if (found === undefined) return entry.optional === true || entry.devOptional === true;
    return found.version === entry.version && existsSync(join(root, path));
  });
}

async function installPackages() {
  if (arePackagesInstalled()) return;
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  const npm = process.env.npm_execpath;
  const label = 'packages: npm ci';
  const quiet = { npm_config_update_notifier: 'false' };
  if (npm !== undefined && npm.endsWith('.js')) {
    await runStep(label, process.execPath, [npm, ...args], quiet);
  } else {
    await runStep(label, 'npm', args, quiet);
  }
}

// --- etcd -----------------------------------------------------------------------------------------------------

function findOnPath(name) {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

async function installEtcd() {
  if (process.env.MILLRACE_ETCD_BINARY !== undefined || findOnPath('etcd') !== undefined) return;
  const byHand =
    'Install etcd 3.4 or newer and put it on PATH, or name it in MILLRACE_ETCD_BINARY:\n' +
    '  Debian, Ubuntu:  sudo apt-get update && sudo apt-get install etcd-server etcd-client\n' +
    '  macOS:           brew install etcd\n' +
    '  others:          https://github.com/etcd-io/etcd/releases';
  const apt = findOnPath('apt-get');
  if (apt === undefined) throw new SetupError(`etcd is missing. ${byHand}`);
  const isRoot = process.getuid?.() === 0;
  if (!isRoot && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status !== 0) {
    throw new SetupError(`etcd is missing and sudo asks for a password. ${byHand}`);
  }
  // RUNLEVEL=1 keeps the package from starting a server of its own.
  const env = ['env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1'];
  const prefix = isRoot ? env : ['sudo', '-n', ...env];
  const aptGet = (...args) => [
    ...prefix.slice(1),
    apt,
    '-qq',
    '-o',
    'DPkg::Lock::Timeout=120',
    ...args,
  ];
  try {
    // One unreachable source of many fails the update; what apt knows already may still do.
    await runStep('etcd: apt-get update', prefix[0], aptGet('update')).catch((error) => {
      say(`${error.message}; trying to install all the same`);
    });
    const packages = ['install', '-y', '--no-install-recommends', 'etcd-server', 'etcd-client'];
    await runStep('etcd: apt-get install etcd-server etcd-client', prefix[0], aptGet(...packages));
  } catch (error) {
    throw new SetupError(`${error.message}\n${byHand}`);
  }
  if (findOnPath('etcd') === undefined) throw new SetupError(`etcd is still missing. ${byHand}`);
}

// --- build ----------------------------------------------------------------------------------------------------

function listFiles(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : listFiles(path);
    return [path];
  });
}

function typescriptSources() {
  return sourceFolders
    .flatMap((folder) => listFiles(join(root, folder)))
    .filter((path) => path.endsWith('.ts') && !path.endsWith('.d.ts'))
    .map((path) => relative(root, path))
    .sort();
}

function outputOf(source) {
  return join('build', source.replace(/\.ts$/, '.js'));
}

/** Digest of everything the output depends on. */
function buildDigest(sources) {
  const hash = createHash('sha256');
  for (const path of ['tsconfig.json', 'package-lock.json', ...sources]) {
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update('\0');
  }
  return hash.digest('hex');
}

/** Outputs whose source is gone would still be found by whoever imports or lists them. */
function removeStaleOutputs(sources) {
  const wanted = new Set(sources.map((source) => source.replace(/\.ts$/, '')));
  for (const path of listFiles(join(root, 'build'))) {
    const match = /^(.*?)(\.d\.ts|\.js|\.js\.map)$/.exec(relative(join(root, 'build'), path));
    if (match !== null && !wanted.has(match[1])) rmSync(path, { force: true });
  }
}

async function build() {
  const sources = typescriptSources();
  const digest = buildDigest(sources);
  const stamp = join(root, 'build/.digest');
  const isComplete = sources.every((source) => existsSync(join(root, outputOf(source))));
  if (isComplete && existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  rmSync(stamp, { force: true });
  // An incremental compile does not write again what it believes to be there.
  if (!isComplete) rmSync(join(root, 'build/.tsbuildinfo'), { force: true });
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  await runStep('build: tsc', process.execPath, [compiler, '--pretty', 'false']);
  removeStaleOutputs(sources);
  writeFileSync(stamp, digest);
}

/** npm links neither the root package's own bin nor its own name. */
function link() {
  const entry = join(root, 'build/bin/millrace.js');
  if (existsSync(entry)) {
    chmodSync(entry, 0o755);
    replaceLink(join(root, 'node_modules/.bin/millrace'), '../../build/bin/millrace.js');
  }
  replaceLink(join(root, 'node_modules/millrace'), '..');
}

function replaceLink(path, target) {
  const current = lstatSync(path, { throwIfNoEntry: false });
  if (current?.isSymbolicLink() === true && readlinkSync(path) === target) return;
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true, recursive: true });
  symlinkSync(target, path);
}

// --- commands -------------------------------------------------------------------------------------------------

/** Runs a compiled entry point in the foreground and takes over its exit code. */
function runEntry(entry, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      ['--enable-source-maps', join(root, 'build', entry), ...args],
      { cwd: process.cwd(), stdio: 'inherit' },
    );
    // From a terminal Ctrl-C reaches the child as well; we stay until it has cleaned up.
    process.on('SIGINT', () => undefined);
    for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)));
  });
}

async function main() {
  const [command = 'setup', ...args] = process.argv.slice(2);
  if (!['setup', 'build', 'start', 'test'].includes(command)) {
    throw new SetupError(`unknown command ${command}: expected setup, build, start or test`);
  }
  checkNode();
  await installPackages();
  if (command !== 'build') await installEtcd();
  await build();
  link();
  if (command === 'start') return runEntry('bin/start.js', args);
  if (command === 'test') return runEntry('test/driver.js', args);
  say('ready');
  return 0;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    process.stderr.write(`${error instanceof SetupError ? error.message : error.stack}\n`);
    process.exitCode = 1;
  },
);
