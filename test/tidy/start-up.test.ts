/** What the command line loads before it knows its command: `millrace --help` answers at once. */
import { build } from 'esbuild';
import t from 'tap';

t.test('no command pays for the packages of another', async (t) => {
  const { metafile } = await build({
    entryPoints: ['bin/millrace.ts'],
    bundle: true,
    write: false,
    metafile: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    logLevel: 'silent',
  });
  const packages = new Set<string>();
  const seen = new Set(['bin/millrace.ts']);
  for (const file of seen) {
    for (const { path, kind, external } of metafile.inputs[file]?.imports ?? []) {
      if (kind !== 'import-statement') continue;
      if (external !== true) seen.add(path);
      else if (!path.startsWith('node:')) packages.add(path);
    }
  }
  t.strictSame([...packages].sort(), ['cli-table3', 'commander', 'picocolors']);
});
