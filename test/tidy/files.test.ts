/** Rules about the files themselves that no other tool checks. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { allOptions, options } from '../../config/options.js';

function sources(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name));
}

const product = ['lib', 'ha', 'checkpoint', 'bin', 'config'].flatMap(sources);

t.test('file names are kebab-case', (t) => {
  const wrong = [...product, ...sources('test')].filter(
    (path) => !/\/[a-z0-9]+(-[a-z0-9]+)*(\.[a-z]+)*\.ts$/.test(path),
  );
  t.strictSame(wrong, []);
  t.end();
});

t.test('no unfinished work is left in the sources', (t) => {
  const marks = new RegExp(`\\b(${['TO', 'DO|FIX', 'ME|X', 'XX'].join('')})\\b`);
  const found = product.filter((path) => marks.test(readFileSync(path, 'utf8')));
  t.strictSame(found, []);
  t.end();
});

t.test('every test file has a name by which its tier runs it', (t) => {
  const tiers = ['unit', 'scenario', 'tidy', 'conformance', 'integration', 'e2e'];
  const runnable = /\.(test|itest|drill)\.ts$/;
  const speaksTap = /from 'tap'/;
  const forgotten = tiers
    .flatMap((tier) => sources(join('test', tier)))
    .filter((path) => !runnable.test(path) && speaksTap.test(readFileSync(path, 'utf8')))
    .filter((path) => !/^\s*export /m.test(readFileSync(path, 'utf8')));
  t.strictSame(forgotten, []);
  t.end();
});

t.test('every option is read somewhere', (t) => {
  const readers = product
    .filter((path) => !path.startsWith('config/'))
    .map((path) => readFileSync(path, 'utf8'))
    .join('\n');
  const names = new Map(Object.entries(options).map(([name, { key }]) => [key, name]));
  const unread = allOptions
    .map(({ key }) => key)
    .filter((key) => !readers.includes(`options.${names.get(key) ?? key}`))
    .filter((key) => !readers.includes(`'${key}'`));
  t.strictSame(unread, []);
  t.end();
});

t.test('links between documents lead to files that exist', (t) => {
  const pages = readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .map((path) => join('docs', path))
    .concat(['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md'])
    .filter((path) => path.endsWith('.md') && existsSync(path));
  const broken: string[] = [];
  for (const page of pages) {
    for (const [, target = ''] of readFileSync(page, 'utf8').matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      if (!existsSync(join(page, '..', target))) broken.push(`${page}: ${target}`);
    }
  }
  t.strictSame(broken, []);
  t.end();
});
