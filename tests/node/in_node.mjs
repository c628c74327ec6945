// node in_node.mjs BASE_URL KEY MODEL: prints what `callAll` returns.
import OpenAI from 'openai';
import { callAll } from './calls.mjs';

const [baseURL, apiKey, model] = process.argv.slice(2);
console.log(JSON.stringify(await callAll(new OpenAI({ baseURL, apiKey }), model)));
