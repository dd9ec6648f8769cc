/** `npm run bench -- NAME [options]`: failover, throughput, startup; without a name, all of them. */
import { MillraceError } from '../lib/base/errors.js';

const benches = ['startup', 'throughput', 'failover'] as const;
const [name] = process.argv.slice(2);

if (name === '--help' || name === '-h') {
  console.log(
    `npm run bench -- [${benches.join(' | ')}] [--rounds N]\n\nEvery benchmark starts its own cluster and prints medians; see bench/README.md.`,
  );
} else {
  const chosen = benches.filter(
    (bench) => name === undefined || name.startsWith('-') || bench === name,
  );
  if (chosen.length === 0)
    throw new MillraceError('CONFIG', `no benchmark '${name ?? ''}': one of ${benches.join(', ')}`);
  for (const bench of chosen) await import(new URL(`${bench}.js`, import.meta.url).href);
}
