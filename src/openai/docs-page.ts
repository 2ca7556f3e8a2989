/** The page at `/docs`: reads `/openapi.json` of the same server and shows it. Loads nothing from elsewhere. */

/** What the page may do: its own style and script, and requests to where it came from. */
export const docsPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"

export const docsPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Warmpath API</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024; background: #fff }
code, pre { font: 13px/1.5 ui-monospace, monospace } pre { overflow-x: auto; background: #f4f5f6; padding: .75rem; border-radius: 6px }
details { border: 1px solid #d9dde1; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem } summary { cursor: pointer }
b { display: inline-block; min-width: 3.5rem; color: #0b6e4f } table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #e6e8ea; background: #15181b } pre { background: #1f2428 } details { border-color: #343b41 } b { color: #5fd3a9 } a { color: #7ab8ff } }
</style>
</head>
<body>
<h1>Warmpath API</h1>
<p id="about">Loading <a href="/openapi.json">openapi.json</a>…</p>
<main id="main"></main>
<script>
const make = (name, ...children) => { const element = document.createElement(name); element.append(...children); return element }
const pretty = (value) => make('pre', JSON.stringify(value, null, 2))
fetch('/openapi.json').then((response) => response.json()).then((api) => {
  const about = document.getElementById('about'), main = document.getElementById('main'), tags = new Map()
  about.replaceChildren(api.info.description + ' Version ' + api.info.version + '. The same as ', Object.assign(make('a', 'openapi.json'), { href: '/openapi.json' }), '.')
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, operation] of Object.entries(methods)) {
    const tag = operation.tags[0]
    tags.set(tag, [...(tags.get(tag) ?? []), { path, method, operation }])
  }
  for (const [tag, list] of tags) {
    main.append(make('h2', tag))
    for (const { path, method, operation } of list) {
      const box = make('details', make('summary', make('b', method.toUpperCase()), make('code', path), ' ' + operation.summary))
      const schema = operation.requestBody?.content['application/json'].schema.$ref?.split('/').pop()
      if (operation.security) box.append(make('p', 'Needs an API key.'))
      if (schema) box.append(make('p', 'Body: ' + schema), pretty(api.components.schemas[schema]))
      const rows = Object.entries(operation.responses).map(([status, { description }]) => make('tr', make('td', make('code', status)), make('td', description)))
      box.append(make('table', ...rows))
      main.append(box)
    }
  }
}).catch((error) => { document.getElementById('about').textContent = 'openapi.json could not be read: ' + error })
</script>
</body>
</html>
`
