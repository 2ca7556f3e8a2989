/**
 * A small model folder for simulated engines: a byte-level tokenizer with some words of its own, a chat template, limits.
 *
 * The ids below `outputVocabularySize` are words, so that what the engines draw can be read.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const words = `the a of and to in is on that with for as it by this from or which be are not at one more than when its into each other some their only
also time work way day part place case point week number night hand side line end head house word story light water room air paper road river stone
tree wind fire bird field garden window table book letter voice music color morning evening summer winter city village market bridge station train ship
cloud rain snow sea shore island mountain valley forest path door wall roof floor corner lamp clock bell cup bread salt apple horse dog cat fish
small large long short old new warm cold quiet loud bright dark early late open slow quick soft strong simple clear deep wide green blue red white
goes comes turns keeps finds gives takes makes holds moves stands waits reads writes sings carries crosses follows meets opens closes reaches leaves
returns begins remains becomes seems knows sees hears feels learns asks answers remembers builds mends counts shares changes grows falls rises
router worker block prompt token cache prefix queue answer request model engine then there here again always often never still soon almost perhaps
together slowly gently without between under over after before beyond across along around through near far away back down up out`.split(/\s+/)

const specials = ['<|end|>', '<|system|>', '<|user|>', '<|assistant|>', '<|tool|>'] as const

/** Ids below it are words. */
export const outputVocabularySize: number = words.length
const byteStart = words.length
const specialStart = byteStart + 256

const chatTemplate = "{% for message in messages %}{{ '<|' + message.role + '|>' }}{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

/** Writes the folder's files. Errors: of the file system. */
export async function writeDemoModel(folder: string, contextLength: number): Promise<void> {
  await mkdir(folder, { recursive: true })
  const files = { 'tokenizer.json': tokenizer(), 'tokenizer_config.json': tokenizerConfig(contextLength), 'config.json': config(contextLength), 'generation_config.json': { eos_token_id: specialStart } }
  await Promise.all(Object.entries(files).map(([name, value]) => writeFile(join(folder, name), `${JSON.stringify(value)}\n`)))
}

/** A byte as byte-level tokenizers write it: printable ones as themselves, the rest from U+0100 on. Source: GPT-2. */
function byteSymbols(): string[] {
  const isPlain = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => (isPlain(byte) ? String.fromCodePoint(byte) : String.fromCodePoint(next++)))
}

function tokenizer(): object {
  const symbols = byteSymbols()
  const space = symbols[0x20] ?? ''
  const vocabulary = new Map<string, number>(words.map((word, index) => [space + word, index]))
  symbols.forEach((symbol, byte) => vocabulary.set(symbol, byteStart + byte))
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: true }
  return {
    version: '1.0', truncation: null, padding: null,
    added_tokens: specials.map((content, index) => ({ id: specialStart + index, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    normalizer: null, pre_tokenizer: byteLevel, post_processor: null, decoder: byteLevel,
    model: {
      type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false,
      // Words are whole tokens; there is nothing to merge.
      ignore_merges: true, vocab: Object.fromEntries(vocabulary), merges: [],
    },
  }
}

const tokenizerConfig = (contextLength: number): object => ({
  tokenizer_class: 'PreTrainedTokenizerFast', model_max_length: contextLength, eos_token: specials[0], chat_template: chatTemplate,
})

const config = (contextLength: number): object => ({
  model_type: 'simulated', architectures: ['SimulatedForCausalLM'], vocab_size: specialStart + specials.length, max_position_embeddings: contextLength, eos_token_id: specialStart,
})
