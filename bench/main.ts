/** `npm run bench -- [NAME] [options]`: throughput (when no name is given), failover, startup. */
import { MillraceError } from '../lib/base/errors.js';

const benches = ['throughput', 'startup', 'failover'];
const [first] = process.argv.slice(2);
const name = first === undefined || first.startsWith('-') ? 'throughput' : first;

const help = `npm run bench -- [${benches.join(' | ')}] [options]

throughput (default): the record path beside naive variants
  --only NAME     only cases whose name contains it; may be repeated. --list names them
  --quick         one round with short windows
  --rounds N      samples of each variant (5); curves and latency take fewer
  --seconds S     steady window of a sample (2)
  --json FILE     writes results there; --save makes them those to compare with
  --compile false runs every job with pipeline.compile: false
  -D KEY=VALUE    any setting, for every job
  --markdown      the saved result (or that of --json FILE) as tables; measures nothing
  --profile       a CPU profile of each job instead of figures
startup, failover: --rounds N

Everything runs in processes of its own; see bench/README.md.`;

if (first === '--help' || first === '-h') console.log(help);
else if (!benches.includes(name))
  throw new MillraceError('CONFIG', `no benchmark '${name}': one of ${benches.join(', ')}`);
else await import(new URL(`${name}.js`, import.meta.url).href);
