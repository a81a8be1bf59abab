// Prints what dotenv reads of an env file, as JSON.
import { readFileSync } from 'node:fs';
import { parse } from 'dotenv';

console.log(JSON.stringify(parse(readFileSync(process.argv[2]))));
