/** The compiled prefix comparison as base64, written by `kernel/build.mjs` from `kernel/prefix-match.ts`. */
export const matchKernelBase64 =
  'AGFzbQEAAAABCAFgA39/fwF/Ag8BA2VudgZtZW1vcnkCAAADAgEABxUCCG1hdGNoUnVuAAAGbWVtb3J5AgAKbQFrAQR/IAEhBCABIAJBA3RqIQYDQCABIAZJ' +
  'BEAgAEEMbCEFA0AgBSkDBCABKQMAUgRAIAEgBGtBA3YPCyAFKAIAIQMgBUEMaiEFIAMgAEEBaiIARiAGIAFBCGoiAUtxDQALIAMhAAwBCwsgAgs='
