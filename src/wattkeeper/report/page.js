// currentColor: the page's own ink, so that a change of its scheme or a printer needs no second drawing
const ink = 'currentColor', soft = {gridColor: ink, gridOpacity: .13, domainColor: ink, domainOpacity: .4, tickColor: ink, tickOpacity: .4};
const config = {background: 'transparent', font: 'system-ui, sans-serif', view: {stroke: null},
  axis: {labelColor: ink, titleColor: ink, titleFontWeight: 500, ...soft},
  header: {labelColor: ink, titleColor: ink}, title: {color: ink, subtitleColor: ink},
  text: {color: ink}, legend: {labelColor: ink, titleColor: ink}};
for (const [name, spec] of Object.entries(JSON.parse(document.getElementById('specs').textContent))) {
  const single = !(spec.vconcat || spec.hconcat);
  vegaEmbed('#chart-' + name, {...spec, config, ...(single && {autosize: {type: 'fit-x', contains: 'padding'}})},
    {actions: false, renderer: 'svg', tooltip: {theme: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'}});
}
