#!/usr/bin/env node
/** The command line: arguments to client to text or --json, errors to exit codes. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { registerCluster } from './commands/cluster.js';
import { registerDoctor } from './commands/doctor.js';
import { registerDrill } from './commands/drill.js';
import { registerHa } from './commands/ha.js';
import { registerJobs } from './commands/jobs.js';
import { describeError, printError } from './commands/output.js';
import { registerRun } from './commands/run.js';
import { exitCodeOf, exitCodes } from './exit-codes.js';

const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string };

const program = new Command('millrace')
  .description('Stateful stream processing for Node.js, highly available by consensus.')
  .version(version)
  .option('-v, --verbose', 'show stack traces')
  .showHelpAfterError('(millrace COMMAND --help shows the options)')
  .exitOverride()
  .addHelpText(
    'after',
    `
First steps:
  $ millrace cluster start                              etcd, 3 JobManagers, 2 TaskManagers
  $ millrace run examples/access-log/job.ts -d          submit a job
  $ millrace list
  $ millrace cluster stop

Exit codes: 0 done, 1 the job or the request failed, 2 wrong usage or configuration, 3 something else is unavailable, 130 interrupted.`,
  );

// `millrace list | head -1` closes the pipe early: nothing is left to say, and nothing is wrong.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});

registerCluster(program);
registerRun(program);
registerJobs(program);
registerHa(program);
registerDoctor(program);
registerDrill(program);

try {
  await program.parseAsync();
} catch (error) {
  // Commander has said what is wrong, or printed the help that was asked for (its own code 0).
  if (error instanceof CommanderError) {
    process.exit(error.exitCode === 0 ? exitCodes.done.code : exitCodes.usage.code);
  }
  printError(describeError(error, program.opts<{ verbose?: boolean }>().verbose === true));
  process.exitCode = exitCodeOf(error);
}
