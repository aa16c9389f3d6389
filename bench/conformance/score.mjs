// Counts a result file of the HTTP cache tests by their own scorer: node score.mjs SUITE-FOLDER RESULTS.json
// Prints {"required": {"pass": 0, "strict": 0, "all": 0}, ..., "failed": ["kind id (verdict: reason)"]}.
// "pass" counts each test by itself; "strict" also wants the tests it depends on passed, as the suite's pages show it.
// "all" includes the tests for browsers only, which no proxy passes.
import fs from 'fs'
const [folder, file] = process.argv.slice(2)
const newer = fs.existsSync(`${folder}/test-engine`)
const scorer = await import(newer ? `${folder}/test-engine/lib/results.mjs` : `${folder}/lib/display.mjs`)
const suites = (await import(`${folder}/tests/index.mjs`)).default
if (!newer) suites.push((await import(`${folder}/tests/surrogate-control.mjs`)).default)
const results = JSON.parse(fs.readFileSync(file))
const out = { failed: [] }
for (const kind of ['required', 'optimal', 'check']) out[kind] = { pass: 0, strict: 0, all: 0 }
for (const suite of suites) {
  for (const test of suite.tests) {
    const kind = test.kind || 'required'
    const passed = verdict => verdict === '✅' || verdict === 'Y'
    const alone = scorer.determineTestResult(suites, test.id, results, false)[2]
    const verdict = passed(alone) ? scorer.determineTestResult(suites, test.id, results)[2] : alone
    out[kind].all++
    if (passed(alone)) out[kind].pass++
    if (passed(verdict)) out[kind].strict++
    else if (!test.browser_only) {
      const words = { '⛔️': 'failed', '⚠️': 'not optimal', N: 'no', '🔹': 'set-up failed', '⁉️': 'harness failed', '⚪️': 'its dependency failed', '↻': 'was retried', '-': 'not run' }
      const reason = Array.isArray(results[test.id]) ? `: ${results[test.id][1]}` : ''
      out.failed.push(`${kind} ${test.id} (${words[verdict] || verdict}${reason})`)
    }
  }
}
console.log(JSON.stringify(out))
