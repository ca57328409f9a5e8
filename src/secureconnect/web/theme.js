// Before the first paint: the page looks as was chosen in the settings, without a flash of the other way. Loaded as an
// ordinary script, for modules wait until the page is there.

document.documentElement.dataset.theme = localStorage.getItem("sc.theme") ?? "system";
