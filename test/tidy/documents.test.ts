import { readFileSync } from 'node:fs';
import t from 'tap';
import { generatedDocuments } from '../../bin/documents.js';
import { loadConfiguration } from '../../config/load.js';
import { allOptions } from '../../config/options.js';

for (const [path, render] of generatedDocuments) {
  t.test(`${path} says what the code says (npm run docs writes it)`, (t) => {
    t.equal(readFileSync(path, 'utf8'), render());
    t.end();
  });
}

t.test('config/millrace.yaml can be loaded with every line in use', (t) => {
  const text = readFileSync('config/millrace.yaml', 'utf8');
  const uncommented = text.replace(/^#(\S+:)/gm, '$1');
  const folder = t.testdir({ 'all.yaml': uncommented });
  const config = loadConfiguration({ folder, file: 'all.yaml', environment: {} });
  for (const option of allOptions) t.strictSame(config.get(option), option.default, option.key);
  t.end();
});

t.test('the job in the README is the example that is compiled and run', (t) => {
  const [, block] = /```ts\n([\s\S]*?)```/.exec(readFileSync('README.md', 'utf8')) ?? [];
  t.equal(block, readFileSync('examples/word-count/job.ts', 'utf8'));
  t.end();
});
