/** How families of models mark their thoughts, by the names of the original's reasoning parsers. */

import { callSections, thinkEnds, thinkStarts } from './kimi-k3-format.ts'

export interface ReasoningFormat {
  readonly starts: readonly string[]
  readonly ends: readonly string[]
  /** The answer begins within a thought. */
  readonly beginsInside: boolean
  /** Every start marker within a thought is dropped, not only the first. */
  readonly dropsAllStarts?: boolean
  /** Markers of tool calls, with which a thought ends too. */
  readonly toolStarts?: readonly string[]
  /** Arguments of the template switch thinking, which is on or off without them; `effort`: it is on where `reasoning_effort` is given. */
  readonly gate?: 'on' | 'off' | 'effort'
  /** The template does not leave a thought open at the end of the prompt. */
  readonly neverInPrompt?: boolean
  /** `thinking_mode: "chat"` switches it off, too. */
  readonly chatMode?: boolean
  /** With thinking off, a start marker at the beginning is dropped all the same. */
  readonly dropsStartWhenOff?: boolean
}

const think = { starts: ['<think>'], ends: ['</think>'] }
const basic: ReasoningFormat = { ...think, beginsInside: false }
const forced: ReasoningFormat = { ...think, beginsInside: true }
const deepseekR1: ReasoningFormat = { ...forced, gate: 'on', chatMode: true }
const deepseekV3: ReasoningFormat = { ...forced, gate: 'off' }
const deepseekV4: ReasoningFormat = { ...basic, toolStarts: ['<｜DSML｜tool_calls>', '<｜DSML｜invoke name='], gate: 'on', chatMode: true }
const nemotronNano: ReasoningFormat = { ...forced, gate: 'on', dropsStartWhenOff: true }
const nemotron3: ReasoningFormat = { ...nemotronNano, dropsAllStarts: true, toolStarts: ['<tool_call>'] }
const kimiK25: ReasoningFormat = { ...forced, toolStarts: ['<|tool_calls_section_begin|>'], gate: 'on' }
const kimiK3: ReasoningFormat = { starts: thinkStarts, ends: thinkEnds, toolStarts: callSections, beginsInside: false }
const minimaxM3: ReasoningFormat = { starts: ['<mm:think>'], ends: ['</mm:think>'], beginsInside: false, toolStarts: [']<]minimax[>['], gate: 'on' }
const gemma4: ReasoningFormat = { starts: ['<|channel>thought\n', '<|channel>'], ends: ['<channel|>'], beginsInside: false, gate: 'off' }
const granite: ReasoningFormat = {
  starts: ["Here's my thought process:", 'Here is my thought process:'], ends: ["Here's my response:", 'Here is my response:'], beginsInside: false, neverInPrompt: true,
}

export const reasoningFormats: Readonly<Record<string, ReasoningFormat>> = {
  basic, qwen3: basic, qwen3_coder: basic, glm45: basic, glm47: basic, nemotron_deci: basic, kimi_k2: basic,
  step3: forced, deepseek_r1: deepseekR1, deepseek_v3: deepseekV3, deepseek_v3_1: deepseekV3, deepseek_v3_2: deepseekR1,
  deepseek_v4: deepseekV4, 'deepseek-v4': deepseekV4, deepseekv4: deepseekV4, deepseek_v41: { ...deepseekV4, toolStarts: ['<｜DSML｜ calls>', '<｜DSML｜ invoke name='] },
  nemotron_nano: nemotronNano, nemotron3, nemotron_v3: nemotron3,
  kimi: { starts: ['◁think▷'], ends: ['◁/think▷'], beginsInside: false, neverInPrompt: true }, kimi_k25: kimiK25, kimi_k3: kimiK3, 'kimi-k3': kimiK3,
  mistral: { starts: ['[THINK]'], ends: ['[/THINK]'], beginsInside: true, gate: 'effort' },
  minimax_m2: { ...forced, toolStarts: ['<minimax:tool_call>', '<invoke name='], gate: 'on', chatMode: true },
  minimax_m3: minimaxM3, 'minimax-m3': minimaxM3,
  gemma4, 'gemma-4': gemma4, granite,
}

/** Whether thoughts are looked for, by what the template was told. */
export function isThinkingOn(format: ReasoningFormat, given: { readonly [name: string]: unknown }): boolean {
  const { gate } = format
  if (gate === undefined) return true
  const effort = given['reasoning_effort']
  const hasEffort = typeof effort === 'string' && effort !== '' && effort !== 'none'
  if (gate === 'effort') return hasEffort
  if (given['thinking'] === false || given['enable_thinking'] === false || effort === 'none') return false
  if (format.chatMode === true && given['thinking_mode'] === 'chat') return false
  return gate === 'on' || given['thinking'] === true || given['enable_thinking'] === true || hasEffort
}
